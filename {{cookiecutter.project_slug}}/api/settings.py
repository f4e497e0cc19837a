"""Settings of the API, read from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from db.settings import RuntimeEnv, SettingsError, read_runtime_env

TOKEN_LENGTH = 32


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the service runs, and the token that callers must show; only in ``dev`` may it be None."""

    runtime_env: RuntimeEnv
    token: str | None = field(repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read RUNTIME_ENV and API_TOKEN.

        Raises:
            SettingsError: where the token is missing outside ``dev``, or too short to be safe.
        """
        runtime_env = read_runtime_env(env)
        token = env.get("API_TOKEN") or None
        how = 'Make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        if token is None and runtime_env is not RuntimeEnv.DEV:
            raise SettingsError(
                f"API_TOKEN is not set. With RUNTIME_ENV={runtime_env} callers must show it, since runs "
                f"cost money. {how}"
            )
        if token is not None and (len(token) < TOKEN_LENGTH or not token.isascii()):
            raise SettingsError(f"API_TOKEN must be {TOKEN_LENGTH} ASCII characters or more. {how}")
        return cls(runtime_env, token)
