"""Settings of runs in the background, and of the webhooks that tell of their end."""

import base64
import binascii
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from chassis.environment import EnvironmentSettings, Listed

SECRET_PREFIX = "whsec_"  # noqa: S105 -- what secrets begin with
SHORTEST = 24  # bytes, as the specification says


def _secrets(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            secret = base64.b64decode(value.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            secret = b""
        if not value.startswith(SECRET_PREFIX) or len(secret) < SHORTEST:
            # Not the value itself: it is a secret.
            raise ValueError(
                f"write {SECRET_PREFIX} and at least {SHORTEST} random bytes in base64, as of: openssl rand -base64 32"
            )
    return values


class BackgroundSettings(EnvironmentSettings):
    """What holds for runs in the background."""

    model_config = ConfigDict(alias_generator=lambda name: f"AGENT_{name}".upper(), populate_by_name=True)

    background: bool = Field(default=False, description="whether there are any")
    background_runs: int = Field(
        default=20,
        gt=0,
        description="that a process has underway at once, beside those of requests; more wait",
    )
    background_queued: int = Field(
        default=100, gt=0, description="that may wait of a caller's; more are told to come back"
    )
    background_attempts: int = Field(
        default=3, gt=0, description="how often a run is begun whose process died, before it counts as failed"
    )
    webhook_secrets: Annotated[Listed, AfterValidator(_secrets)] = Field(
        default=(), description="what webhooks are signed with; several while one replaces another"
    )
    webhook_hosts: Listed = Field(
        default=(), description="HOST or HOST:PORT that may be private, and told without TLS"
    )
    webhook_seconds: float = Field(default=86_400, gt=0, description="for how long an end is told again")

    @model_validator(mode="after")
    def _webhooks_of_something(self) -> Self:
        if self.webhook_secrets and not self.background:
            raise ValueError(
                "AGENT_WEBHOOK_SECRETS tells of runs in the background: set AGENT_BACKGROUND=True"
            )
        return self
