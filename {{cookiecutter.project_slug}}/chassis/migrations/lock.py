"""One process migrates, the others wait: PostgreSQL's advisory locks, and who holds them.

Two session-level locks, both free the moment their connection ends, however it ends:

- the *gate*, on a connection of its own that does nothing else, so that no rollback, retry or
  pooler trick of the migration can lose it;
- the *work* lock, on the connection that migrates. It outlives the gate when a process is killed
  while the server still works on its statement; the next one waits for that, too.

Both are polled. A session that waits inside `pg_advisory_lock` holds a snapshot, and a
`CREATE INDEX CONCURRENTLY` of the holder would wait for that snapshot for ever.
https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from chassis.database.version_table import VersionTable

log = logging.getLogger("alembic.lock")

POLL = 0.25
REPORT_EVERY = 5

HOLDER = text("""
    SELECT a.pid, a.application_name, to_char(a.state_change, 'HH24:MI:SS')
      FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32) | l.objid::bigint = :key
""")


@contextmanager
def gate(connection: Connection, wait: float, table: VersionTable) -> Iterator[None]:
    """Hold the gate for as long as the block lasts; `connection` must be in autocommit mode.

    Raises:
        CommandError: if another process still holds it after `wait` seconds, or through a pooler.
    """
    _refuse_pooler(connection)
    notice_lost_clients(connection)
    key = _key(connection, "gate", table)
    _acquire(connection, key, wait)
    try:
        yield
    finally:
        # A connection that broke meanwhile has let go of it already.
        with suppress(DBAPIError):
            if not connection.closed and not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


def take_work_lock(connection: Connection, wait: float, table: VersionTable) -> None:
    """Take the work lock for as long as the connection lives.

    Raises:
        CommandError: if the remains of another process still hold it after `wait` seconds.
    """
    _acquire(connection, _key(connection, "work", table), wait)


def _key(connection: Connection, purpose: str, table: VersionTable) -> int:
    """Derive a lock's key, a signed 64-bit number, from the database and the version table."""
    database = connection.scalar(text("SELECT current_database()"))
    digest = hashlib.sha256(f"{purpose}:{database}:{table}".encode()).digest()
    connection.rollback()
    return int.from_bytes(digest[:8], signed=True)


def _acquire(connection: Connection, key: int, wait: float) -> None:
    began = reported = time.monotonic()
    while True:
        got = connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key})
        connection.rollback()
        if got:
            return
        now = time.monotonic()
        if now - began >= wait:
            raise CommandError(
                f"Another process still migrates after {wait:.0f} s: {_holder(connection, key)}. Wait for "
                "it, or stop that process on its host. MIGRATE_LOCK_TIMEOUT sets how long to wait."
            )
        if now - reported >= REPORT_EVERY or reported == began:
            log.warning(f"Waiting for another process that migrates: {_holder(connection, key)}.")
            reported = now
        time.sleep(POLL)


def _holder(connection: Connection, key: int) -> str:
    holders = connection.execute(HOLDER, {"key": key}).all()
    connection.rollback()
    return (
        ", ".join(f"pid {pid} ({name or 'no name'}, since {since})" for pid, name, since in holders)
        or "it has just ended"
    )


def notice_lost_clients(connection: Connection) -> None:
    """Have the server end the session within half a minute where this host vanishes without a word."""
    for setting, value in (("idle", 15), ("interval", 5), ("count", 3)):
        connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
    connection.commit()


def _refuse_pooler(connection: Connection) -> None:
    """Refuse a pooler: it may give the lock's session, and what is set in it, to somebody else.

    A pooler answers with a process id of its own making when the connection is opened.
    """
    told = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    actual = connection.scalar(text("SELECT pg_backend_pid()"))
    connection.rollback()
    if actual != told:
        raise CommandError(
            "The connection goes through a pooler, where a lock gets lost and settings leak into the "
            "service. Set MIGRATE_DATABASE_URL, or MIGRATE_DB_HOST and MIGRATE_DB_PORT, to the database's "
            "own address."
        )
