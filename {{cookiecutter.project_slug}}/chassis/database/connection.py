"""Connect to the database, wait where waiting can help, and explain where it can't."""

import logging
import time

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from chassis.settings import ChassisError

log = logging.getLogger("alembic.connection")

TELL_EVERY = 5

# What the server or libpq says -> what it means, and whether waiting can help. libpq gives no SQLSTATE
# for a connection that didn't come about, so the words have to do. Unknown words, those of a server in
# another language for example, are shown as they are, and waited for.
CAUSES = (
    ("Connection refused", True, "Nothing answers at the database's address: is it running, is DB_PORT right?"),
    ("No such file or directory", True, "There is no socket at the database's path: is it running?"),
    ("resolve host", True, "The database's host name can't be resolved: is DB_HOST right?"),
    ("timeout expired", True, "The database's address doesn't answer: does a firewall keep it away?"),
    ("starting up", True, "The database is starting up."),
    ("shutting down", True, "The database is shutting down."),
    ("recovery mode", True, "The database is recovering from a crash."),
    ("too many clients", True, "The database has no connection left: close some, or raise max_connections."),
    ("connection slots are reserved", True, "The database has no connection left for this role."),
    ("too many connections", True, "The role or the database has no connection left under its limit."),
    ("password authentication failed", False, "The database refuses the user or the password: check both."),
    ("no password supplied", False, "The database wants a password: set DB_PASS."),
    ("no pg_hba.conf entry", False, "The database admits nobody like this from here, or only with TLS: see DB_SSLMODE."),
    ("does not support SSL", False, "The database offers no TLS, but DB_SSLMODE asks for it."),
    ("certificate verify failed", False, "The database's certificate isn't trusted: see DB_SSLROOTCERT."),
    ("server certificate", False, "The database's certificate isn't made for this host name: see DB_HOST."),
    ("not permitted to log in", False, "The role may not log in: ALTER ROLE ... LOGIN allows it."),
)  # fmt: skip


class DatabaseUnavailableError(ChassisError):
    """The database can't be connected to; the message says why and what to do, in one or two lines."""


def connect(engine: Engine, wait: float) -> Connection:
    """Connect, trying again for up to `wait` seconds while the cause may pass.

    Raises:
        DatabaseUnavailableError: when the time is up, or at once where waiting can't help.
    """
    place = f"{engine.url.host or 'localhost'}:{engine.url.port or 5432}"
    began, pause, told = time.monotonic(), 0.1, 0.0
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            meaning, passing = explain(error)
        except DBAPIError as error:
            raise DatabaseUnavailableError(
                f"The database settings can't be used: {_one_line(error)}"
            ) from None
        now = time.monotonic()
        if not passing:
            raise DatabaseUnavailableError(meaning)
        if now + pause > began + wait:
            raise DatabaseUnavailableError(f"{meaning} Tried {place} for {wait:g} s.")
        if now - told >= TELL_EVERY:
            log.warning("%s Trying %s for up to %g s.", meaning, place, wait)
            told = now
        time.sleep(pause)
        pause = min(pause * 2, 2)


def explain(error: DBAPIError) -> tuple[str, bool]:
    """Return what a failed connection means, and whether that may pass by itself."""
    said = _one_line(error)
    # A host with several addresses fails with the words of each, and an answer tells more than silence.
    for words, passing, meaning in sorted(CAUSES, key=lambda cause: cause[1]):
        if words in said:
            return meaning, passing
    if said.endswith("does not exist"):
        # Of a database or a role, and the server's own words name it.
        return (
            f"The {said.rpartition('FATAL: ')[2].strip()}: create it, or correct the setting.",
            False,
        )
    return f"The database can't be reached: {said}", True


def _one_line(error: DBAPIError) -> str:
    """What the driver says; libpq spreads it over several lines."""
    return " ".join(str(error.orig).split())
