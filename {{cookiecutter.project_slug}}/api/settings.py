"""Settings of the API, read from the environment, and the doors that must be shut outside of ``dev``."""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from db.settings import DatabaseSettings, RuntimeEnv, SettingsError

# The password in compose.yaml.
DEVELOPMENT_PASSWORD = "for-development-only"  # noqa: S105 -- no secret: everybody has it

Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[^/\s]+)$")]
Origins = Annotated[
    tuple[Origin, ...], BeforeValidator(lambda text: tuple(filter(None, map(str.strip, text.split(",")))))
]


def _in_dev(values: dict[str, Any]) -> bool:
    return values.get("runtime_env") is RuntimeEnv.DEV


class ApiSettings(BaseModel):
    """How the service behaves towards its callers; each field has the name of its variable."""

    model_config = ConfigDict(frozen=True)

    runtime_env: RuntimeEnv = Field(RuntimeEnv.DEV, alias="RUNTIME_ENV")
    keys_required: bool = Field(alias="API_KEYS_REQUIRED", default_factory=lambda values: not _in_dev(values))
    docs: bool = Field(alias="API_DOCS", default_factory=_in_dev)
    cors_origins: Origins = Field((), alias="API_CORS_ORIGINS")
    max_body_bytes: int = Field(1_000_000, gt=0, alias="API_MAX_BODY_BYTES")
    body_seconds: float = Field(30, gt=0, alias="API_BODY_SECONDS")
    ping_seconds: float = Field(15, gt=0, alias="API_PING_SECONDS")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", alias="LOG_LEVEL")
    log_format: Literal["json", "text"] = Field(
        alias="LOG_FORMAT", default_factory=lambda values: "text" if _in_dev(values) else "json"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingsError: naming each that is wrong, and outside ``dev`` each door that is open.
        """
        try:
            settings = cls.model_validate({name: value for name, value in env.items() if value})
        except ValidationError as error:
            raise SettingsError(
                "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            ) from None
        if settings.runtime_env is not RuntimeEnv.DEV and (doors := list(settings._open_doors(env))):
            raise SettingsError(
                f"With RUNTIME_ENV={settings.runtime_env} no door may be open: {'; '.join(doors)}."
            )
        return settings

    def _open_doors(self, env: Mapping[str, str]) -> Iterator[str]:
        database = DatabaseSettings.from_env(env)
        if not self.keys_required:
            yield "API_KEYS_REQUIRED=False lets everybody in, and runs cost money"
        if self.docs:
            yield "API_DOCS=True shows the documentation to everybody"
        if "*" in self.cors_origins:
            yield "API_CORS_ORIGINS=* lets every website in"
        if any(
            url and url.password == DEVELOPMENT_PASSWORD for url in (database.url, database.migration_url)
        ):
            yield "the database has the password of compose.yaml, which everybody knows"
