"""Settings of the API, and what must not be open to everybody outside of ``dev``."""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from chassis.database.settings import DatabaseSettings
from chassis.environment import EnvironmentSettings
from chassis.http.origins import ANY, NONE, read_origins
from chassis.settings import RuntimeEnv, SettingsError

# The password in compose.yaml.
DEVELOPMENT_PASSWORD = "for-development-only"  # noqa: S105 -- no secret: everybody has it

Origins = Annotated[tuple[str, ...], BeforeValidator(read_origins)]
LEVELS = {"WARN": "WARNING"}
# In any case of their letters.
Lower = BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text)
Level = BeforeValidator(
    lambda text: LEVELS.get(text.upper(), text.upper()) if isinstance(text, str) else text
)


def _in_dev(values: dict[str, Any]) -> bool:
    return values.get("runtime_env") is RuntimeEnv.DEV


class ApiSettings(EnvironmentSettings):
    """How the service behaves towards its callers; each field has the name of its variable."""

    runtime_env: Annotated[RuntimeEnv, Lower] = Field(RuntimeEnv.DEV, alias="RUNTIME_ENV")
    keys_required: bool = Field(alias="API_KEYS_REQUIRED", default_factory=lambda values: not _in_dev(values))
    docs: bool = Field(alias="API_DOCS", default_factory=_in_dev)
    cors_origins: Origins = Field((), alias="API_CORS_ORIGINS")
    max_body_bytes: int = Field(1_000_000, gt=0, alias="API_MAX_BODY_BYTES")
    max_upload_bytes: int = Field(9_000_000, gt=0, alias="API_MAX_UPLOAD_BYTES")
    body_seconds: float = Field(30, gt=0, alias="API_BODY_SECONDS")
    ping_seconds: float = Field(5, gt=0, alias="API_PING_SECONDS")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Level] = Field(
        "INFO", alias="LOG_LEVEL"
    )
    log_format: Annotated[Literal["json", "text"], Lower] = Field(
        alias="LOG_FORMAT", default_factory=lambda values: "text" if _in_dev(values) else "json"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingsError: naming each that is wrong, and outside ``dev`` each that lets in too many.
        """
        settings = super().from_env(env)
        if settings.runtime_env is not RuntimeEnv.DEV and (open_to_all := list(settings._open_to_all(env))):
            raise SettingsError(
                f"With RUNTIME_ENV={settings.runtime_env} no door may be open: {'; '.join(open_to_all)}."
            )
        return settings

    def _open_to_all(self, env: Mapping[str, str]) -> Iterator[str]:
        database = DatabaseSettings.from_env(env)
        if not self.keys_required:
            yield "API_KEYS_REQUIRED=False lets everybody in, and runs cost money"
        if self.docs:
            yield "API_DOCS=True shows the documentation to everybody"
        if open_origins := {ANY, NONE}.intersection(self.cors_origins):
            yield f"API_CORS_ORIGINS={min(open_origins)} lets every website in"
        if any(
            url and url.password == DEVELOPMENT_PASSWORD for url in (database.url, database.migration_url)
        ):
            yield "the database has the password of compose.yaml, which everybody knows"
