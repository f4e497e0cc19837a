"""How long what is stored is kept. Without a setting it is kept for good."""

from pydantic import ConfigDict, Field

from chassis.environment import EnvironmentSettings


class RetentionSettings(EnvironmentSettings):
    """Days after which the housekeeping deletes, from variables that start with ``KEEP_``."""

    model_config = ConfigDict(alias_generator=lambda name: f"KEEP_{name}".upper(), populate_by_name=True)

    conversations_days: float | None = Field(default=None, gt=0, description="since the last turn")
    runs_days: float | None = Field(default=None, gt=0, description="since their end")
    documents_days: float | None = Field(default=None, gt=0, description="since their contents changed")
    interval_seconds: float = Field(default=3600, gt=0, description="between two looks at what is due")

    @property
    def is_on(self) -> bool:
        """Tell whether anything is to be deleted some time."""
        days = (self.conversations_days, self.runs_days, self.documents_days)
        return any(each is not None for each in days)
