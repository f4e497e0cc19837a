"""Settings of the agents, from environment variables that start with ``AGENT_``."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from chassis.environment import EnvironmentSettings, Listed


def _with_providers(names: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := [name for name in names if ":" not in name]:
        raise ValueError(f"{wrong[0]} can't be used: write PROVIDER:MODEL")
    return names


Names = Annotated[Listed, AfterValidator(_with_providers)]


class AgentSettings(EnvironmentSettings):
    """What holds for the runs of all agents."""

    model_config = ConfigDict(alias_generator=lambda name: f"AGENT_{name}".upper(), populate_by_name=True)

    model: str | None = Field(default=None, description="PROVIDER:MODEL, as pydantic-ai names them")
    models: Names = Field(default=(), description="those that a request may choose, with commas between them")
    fallback_models: Names = Field(
        default=(),
        description="those that stand in, one after the other, where the first is down or out of quota",
    )
    timeout: float = Field(
        default=120, gt=0, description="seconds that a run may take, the model's and its tools'"
    )
    concurrent_runs: int = Field(
        default=300, gt=0, description="runs that a process has underway at once; more are told to come back"
    )
    request_limit: int = Field(default=25, gt=0, description="requests to the model that a run may make")
    history_messages: int = Field(default=100, gt=0, description="how many past messages the model is sent")
    history_chars: int = Field(default=200_000, gt=0, description="and how many characters of them")
    resume_seconds: float = Field(
        default=15, ge=0, description="how long a streamed run goes on when its caller is gone"
    )
    stale_seconds: float = Field(
        default=30, gt=0, description="after which a run whose process is silent counts as interrupted"
    )
