"""Where the database is: read from the environment, kept as a URL object, never printed.

Standard library and SQLAlchemy only: every migration imports this module.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

WORKSPACE = Path(__file__).resolve().parent.parent
EMBEDDED_DATA = WORKSPACE / ".postgres"
DEFAULT_DRIVER = "postgresql+psycopg"

# What SQLAlchemy raises for a text that is no URL.
NO_URL = (ArgumentError, ValueError)

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off", ""})


class SettingsError(ValueError):
    """A setting is missing or can't be read; the message says which one and what would be right."""


class RuntimeEnv(StrEnum):
    """Where the process runs. Only ``dev`` may fall back to the embedded database."""

    DEV = "dev"
    STG = "stg"
    PRD = "prd"


def read_bool(env: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Read the truth of `name`: True, 1, yes, on or False, 0, no, off, in any case.

    Raises:
        SettingsError: for anything else, so that a typing error never counts as a silent no.
    """
    value = env.get(name)
    if value is None:
        return default
    if value.strip().lower() in TRUE:
        return True
    if value.strip().lower() in FALSE:
        return False
    raise SettingsError(f"{name} must be True or False, not {value!r}.")


def read_runtime_env(env: Mapping[str, str]) -> RuntimeEnv:
    """Read RUNTIME_ENV, ``dev`` where it isn't set.

    Raises:
        SettingsError: for a name that is none of dev, stg, prd.
    """
    value = env.get("RUNTIME_ENV") or RuntimeEnv.DEV.value
    try:
        return RuntimeEnv(value)
    except ValueError:
        raise SettingsError(f"RUNTIME_ENV must be dev, stg or prd, not {value!r}.") from None


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is.

    `url` is None where the embedded PostgreSQL is to be used (see `db.embedded`). It stays out of
    the representation, as it holds the password.
    """

    runtime_env: RuntimeEnv
    url: URL | None = field(repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings: DATABASE_URL, else DB_HOST and its companions, else the embedded one.

        Raises:
            SettingsError: naming each setting that is missing or wrong, never its value.
        """
        runtime_env = read_runtime_env(env)
        driver = env.get("DB_DRIVER") or DEFAULT_DRIVER
        if env.get("DATABASE_URL"):
            return cls(runtime_env, _parse_url(env["DATABASE_URL"], driver))
        if env.get("DB_HOST"):
            return cls(runtime_env, _build_url(env, runtime_env, driver))
        if runtime_env is not RuntimeEnv.DEV:
            raise SettingsError(
                f"No database is set for RUNTIME_ENV={runtime_env}. Set DATABASE_URL, or DB_HOST "
                "with DB_USER, DB_PASS and DB_DATABASE. The embedded database is for dev only."
            )
        return cls(runtime_env, None)


def database_url(settings: DatabaseSettings | None = None) -> URL:
    """Return the URL that the settings name, starting the embedded database where they name none.

    Raises:
        SettingsError: where a setting is missing or can't be read.
    """
    settings = settings or DatabaseSettings.from_env()
    if settings.url is not None:
        return settings.url
    # Only here, so that production never looks for a development package.
    from db import embedded

    return embedded.start()


def _parse_url(text: str, driver: str) -> URL:
    # The parser's own message repeats what it was given, password and all, so it is left out.
    try:
        url = make_url(text)
    except NO_URL:
        raise SettingsError(
            "DATABASE_URL can't be read. It has the form postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "with the characters @ : / # % in the password written as %40 %3A %2F %23 %25. "
            "DB_HOST, DB_USER, DB_PASS and DB_DATABASE take them as they are."
        ) from None
    # Hosting platforms hand out URLs without a driver, and some with the scheme libpq calls old.
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername=driver)
    _check_driver(url.drivername, "DATABASE_URL")
    return url


def _build_url(env: Mapping[str, str], runtime_env: RuntimeEnv, driver: str) -> URL:
    required = ["DB_USER", "DB_DATABASE"]
    if runtime_env is not RuntimeEnv.DEV:
        required.append("DB_PASS")
    missing = [name for name in required if not env.get(name)]
    if missing:
        raise SettingsError(f"DB_HOST is set, but {', '.join(missing)} is missing.")
    _check_driver(driver, "DB_DRIVER")
    port = env.get("DB_PORT") or "5432"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"DB_PORT must be a number from 1 to 65535, not {port!r}.")
    return URL.create(
        driver,
        username=env["DB_USER"],
        password=env.get("DB_PASS") or None,
        host=env["DB_HOST"],
        port=int(port),
        database=env["DB_DATABASE"],
    )


def _check_driver(driver: str, name: str) -> None:
    if driver != DEFAULT_DRIVER:
        raise SettingsError(
            f"{name} names the driver {driver!r}, but this workspace is built on {DEFAULT_DRIVER} "
            "(psycopg 3), which serves both its sync and its async engine."
        )
