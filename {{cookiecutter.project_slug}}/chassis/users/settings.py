"""Who vouches for people, and what each person may use."""

from decimal import Decimal
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, model_validator

from chassis.environment import EnvironmentSettings

# What one says to a provider of one's own, on this machine.
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"must be the issuer's address, https://..., not {value!r}")
    if parts.scheme == "http" and parts.hostname not in LOCAL:
        raise ValueError("must begin with https: whoever is on the way could hand out tokens")
    return value


def _parameters(value: str) -> str:
    try:
        parse_qsl(value, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError(f"must be NAME=VALUE&NAME=VALUE, not {value!r}") from None
    return value


class UserSettings(EnvironmentSettings):
    """How people are known; each field has the name of its variable. Without an issuer there are only keys."""

    issuer: Annotated[str, AfterValidator(_address)] | None = Field(None, alias="OIDC_ISSUER")
    audience: str | None = Field(None, alias="OIDC_AUDIENCE")
    # For the chat page: a public client, which has no secret.
    client_id: str | None = Field(None, alias="OIDC_CLIENT_ID")
    scope: str = Field("openid", alias="OIDC_SCOPE")
    parameters: Annotated[str, AfterValidator(_parameters)] | None = Field(None, alias="OIDC_PARAMETERS")
    leeway_seconds: int = Field(60, ge=0, le=600, alias="OIDC_LEEWAY_SECONDS")
    requests_per_minute: int | None = Field(None, gt=0, alias="USER_REQUESTS_PER_MINUTE")
    tokens_per_day: int | None = Field(None, gt=0, alias="USER_TOKENS_PER_DAY")
    cost_per_day: Decimal | None = Field(None, gt=0, alias="USER_COST_PER_DAY")

    @model_validator(mode="after")
    def _issuer_and_audience(self) -> Self:
        # Without an audience any token of the issuer would do, whatever service it was made for.
        if (self.issuer is None) != (self.audience is None):
            raise ValueError("OIDC_ISSUER and OIDC_AUDIENCE go together")
        if self.client_id and not self.issuer:
            raise ValueError("OIDC_CLIENT_ID needs OIDC_ISSUER and OIDC_AUDIENCE")
        return self
