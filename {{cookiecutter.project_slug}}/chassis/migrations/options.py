"""How careful a migration is: from the environment, or for one command from Alembic's ``-x``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chassis.settings import SettingsError, read_seconds

WHEN_AHEAD = ("error", "start")


@dataclass(frozen=True)
class Options:
    """The options, each from ``MIGRATE_<NAME>`` or, which wins, from ``-x <name>=…``. Times in seconds."""

    lock_timeout: float = 120
    """How long to wait for another process that migrates the same database."""

    ddl_lock_timeout: float = 4
    """How long a statement may wait for its table, while all later queries of the table wait behind it."""

    ddl_retries: int = 5
    """How often a revision that didn't get its table in that time is tried again."""

    connect_timeout: float = 15
    """How long to wait for a database that is starting, full or out of reach."""

    when_ahead: str = "error"
    """What to do with a database that is ahead of the code: ``error``, or ``start`` without migrating."""

    @classmethod
    def read(cls, env: Mapping[str, str], arguments: Mapping[str, str]) -> Self:
        """Read the options.

        Raises:
            SettingsError: for an unknown argument and for a value that is no such number or word.
        """
        names = set(cls.__dataclass_fields__)
        if unknown := sorted(set(arguments) - names):
            raise SettingsError(f"-x {unknown[0]} isn't known. Known are: {', '.join(sorted(names))}.")
        given = dict(env) | {f"MIGRATE_{name.upper()}": value for name, value in arguments.items()}
        when_ahead = given.get("MIGRATE_WHEN_AHEAD") or cls.when_ahead
        if when_ahead not in WHEN_AHEAD:
            raise SettingsError(
                f"MIGRATE_WHEN_AHEAD must be one of {', '.join(WHEN_AHEAD)}, not {when_ahead!r}."
            )
        retries = given.get("MIGRATE_DDL_RETRIES") or str(cls.ddl_retries)
        if not (retries.isascii() and retries.isdecimal()):
            raise SettingsError(f"MIGRATE_DDL_RETRIES must be a number, not {retries!r}.")
        return cls(
            lock_timeout=read_seconds(given, "MIGRATE_LOCK_TIMEOUT", cls.lock_timeout),
            ddl_lock_timeout=read_seconds(given, "MIGRATE_DDL_LOCK_TIMEOUT", cls.ddl_lock_timeout),
            ddl_retries=int(retries),
            connect_timeout=read_seconds(given, "MIGRATE_CONNECT_TIMEOUT", cls.connect_timeout),
            when_ahead=when_ahead,
        )
