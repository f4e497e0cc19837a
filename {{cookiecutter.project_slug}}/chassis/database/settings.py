"""Where the database is: read from the environment, kept as a URL object, never printed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from chassis.settings import RuntimeEnv, SettingsError, read_runtime_env, trimmed

DEFAULT_DRIVER = "postgresql+psycopg"

# What is read here; a file that holds one of them may well end with a line break.
VARIABLES = (
    "DATABASE_URL", "DB_HOST", "DB_PORT", "DB_USER", "DB_PASS", "DB_DATABASE", "DB_DRIVER", "DB_SSLMODE",
    "DB_SSLROOTCERT", "MIGRATE_DATABASE_URL", "MIGRATE_DB_HOST", "MIGRATE_DB_PORT", "MIGRATE_DB_USER",
    "MIGRATE_DB_PASS",
)  # fmt: skip

# What SQLAlchemy raises for a text that is no URL.
NO_URL = (ArgumentError, ValueError)

# https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is, for the app and for migrations.

    `url` is None where the embedded PostgreSQL is to be used (see `chassis.database.embedded`). `migration_url`
    is the same as `url` unless migrations have a role or an address of their own. Both stay out of
    the representation, as they hold passwords.
    """

    runtime_env: RuntimeEnv
    url: URL | None = field(repr=False)
    migration_url: URL | None = field(repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings: DATABASE_URL, else DB_HOST and its companions, else the embedded one.

        Raises:
            SettingsError: naming each setting that is missing or wrong, never its value.
        """
        env = trimmed(env, VARIABLES)
        runtime_env = read_runtime_env(env)
        url = _read_url(env, runtime_env)
        return cls(runtime_env, url, _read_migration_url(env, url))


def _read_url(env: Mapping[str, str], runtime_env: RuntimeEnv) -> URL | None:
    if env.get("DATABASE_URL"):
        return _with_tls(_parse_url("DATABASE_URL", env), env)
    if env.get("DB_HOST"):
        return _with_tls(_build_url(env, runtime_env), env)
    if runtime_env is not RuntimeEnv.DEV:
        raise SettingsError(
            f"No database is set for RUNTIME_ENV={runtime_env}. Set DATABASE_URL, or DB_HOST with "
            "DB_USER, DB_PASS and DB_DATABASE. The embedded database is for dev only."
        )
    return None


def _read_migration_url(env: Mapping[str, str], url: URL | None) -> URL | None:
    """The app's URL with what migrations have of their own: a role, and a way around a pooler."""
    if env.get("MIGRATE_DATABASE_URL"):
        return _with_tls(_parse_url("MIGRATE_DATABASE_URL", env), env)
    if url is None:
        return None
    if env.get("MIGRATE_DB_USER"):
        url = url.set(username=env["MIGRATE_DB_USER"], password=env.get("MIGRATE_DB_PASS") or None)
    elif env.get("MIGRATE_DB_PASS"):
        raise SettingsError("MIGRATE_DB_PASS is set, but MIGRATE_DB_USER is missing.")
    if env.get("MIGRATE_DB_HOST"):
        # A host in the query, as sockets have it, would win.
        url = url.difference_update_query(["host", "hostaddr", "port"]).set(host=env["MIGRATE_DB_HOST"])
    if env.get("MIGRATE_DB_PORT"):
        url = url.set(port=_read_port(env, "MIGRATE_DB_PORT"))
    return url


def _parse_url(name: str, env: Mapping[str, str]) -> URL:
    # The parser's own message repeats what it was given, password and all, so it is left out.
    try:
        url = make_url(env[name])
    except NO_URL:
        raise SettingsError(
            f"{name} can't be read. It has the form postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "with the characters @ : / # % in the password written as %40 %3A %2F %23 %25. "
            "DB_HOST, DB_USER, DB_PASS and DB_DATABASE take them as they are."
        ) from None
    # Hosting platforms hand out URLs without a driver, and some with the scheme libpq calls old.
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername=DEFAULT_DRIVER)
    _check_driver(url.drivername, name)
    return url


def _build_url(env: Mapping[str, str], runtime_env: RuntimeEnv) -> URL:
    required = ["DB_USER", "DB_DATABASE"]
    if runtime_env is not RuntimeEnv.DEV:
        required.append("DB_PASS")
    missing = [name for name in required if not env.get(name)]
    if missing:
        raise SettingsError(f"DB_HOST is set, but {', '.join(missing)} is missing.")
    driver = env.get("DB_DRIVER") or DEFAULT_DRIVER
    _check_driver(driver, "DB_DRIVER")
    return URL.create(
        driver,
        username=env["DB_USER"],
        password=env.get("DB_PASS") or None,
        host=env["DB_HOST"],
        port=_read_port(env, "DB_PORT"),
        database=env["DB_DATABASE"],
    )


def _with_tls(url: URL, env: Mapping[str, str]) -> URL:
    """Add DB_SSLMODE and DB_SSLROOTCERT, which libpq knows as sslmode and sslrootcert."""
    mode, certificate = env.get("DB_SSLMODE"), env.get("DB_SSLROOTCERT")
    if mode and mode not in SSL_MODES:
        raise SettingsError(f"DB_SSLMODE must be one of {', '.join(SSL_MODES)}, not {mode!r}.")
    if certificate and certificate != "system" and not Path(certificate).is_file():
        raise SettingsError(f"DB_SSLROOTCERT names a file that isn't there: {certificate}")
    added = {"sslmode": mode, "sslrootcert": certificate}
    return url.update_query_dict({name: value for name, value in added.items() if value})


def _read_port(env: Mapping[str, str], name: str) -> int:
    port = env.get(name) or "5432"
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise SettingsError(f"{name} must be a number from 1 to 65535, not {port!r}.")
    return int(port)


def _check_driver(driver: str, name: str) -> None:
    if driver != DEFAULT_DRIVER:
        raise SettingsError(
            f"{name} names the driver {driver!r}, but this workspace is built on {DEFAULT_DRIVER} "
            "(psycopg 3), which serves both its sync and its async engine."
        )
