"""Settings of the agents, from environment variables that start with ``AGENT_``."""

import os
from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.settings import SettingsError

DEFAULT_MODEL = "{{ {'openai': 'openai:gpt-6.1-terra', 'anthropic': 'anthropic:claude-sonnet-5-5', 'google': 'google:gemini-3.8-flash'}[cookiecutter.model_provider] }}"


class AgentSettings(BaseModel):
    """What holds for the runs of all agents."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(default=DEFAULT_MODEL, description="PROVIDER:MODEL, as pydantic-ai names them")
    timeout: float = Field(default=120, gt=0, description="seconds that a run may take")
    request_limit: int = Field(default=25, gt=0, description="requests to the model that a run may make")
    history_messages: int = Field(default=100, gt=0, description="how many past messages the model is sent")
    history_chars: int = Field(default=200_000, gt=0, description="and how many characters of them")
    resume_seconds: float = Field(
        default=15, ge=0, description="how long a streamed run goes on when its caller is gone"
    )
    stale_seconds: float = Field(
        default=30, gt=0, description="after which a run whose process is silent counts as interrupted"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read each from the variable of its name, such as AGENT_MODEL.

        Raises:
            SettingsError: naming each that is wrong.
        """
        values = {name: env.get(f"AGENT_{name}".upper()) for name in cls.model_fields}
        try:
            return cls.model_validate({name: value for name, value in values.items() if value})
        except ValidationError as error:
            wrong = (f"AGENT_{item['loc'][0]}".upper() + f": {item['msg']}" for item in error.errors())
            raise SettingsError("; ".join(wrong)) from None
