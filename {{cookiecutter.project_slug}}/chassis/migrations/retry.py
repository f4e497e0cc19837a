"""Let traffic through: bounded waits for locks, retries, and care with what runs concurrently.

A DDL statement that waits for its table makes every later query of the table wait behind it. So it
waits a few seconds, gives up, lets the queue through, and comes back.
"""

import logging
import time
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any

from alembic.util import CommandError
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from chassis.migrations.lock import notice_lost_clients
from chassis.migrations.options import Options

log = logging.getLogger("alembic.retry")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED = "55P03", "40P01"
EXPLAINED = {
    "42501": "The role may not do that. Migrate as the role that owns the tables: see MIGRATE_DB_USER.",
    "25006": "The database is read-only, a replica perhaps. Migrate on the primary.",
}

INVALID_INDEXES = text("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisvalid AND c.relkind = 'i'
       -- Not one that is being built: that takes this lock, as a vacuum does, on the table.
       AND NOT EXISTS (
           SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted
              AND a.backend_type IS DISTINCT FROM 'autovacuum worker')
""")


def migrate_with_retries(connection: Connection, options: Options, migrate: Callable[[], None]) -> None:
    """Migrate; a revision that doesn't get its locks in time is rolled back and tried again.

    Raises:
        CommandError: when the tries are used up, or the role or the database can't do it at all.
    """
    _set_up(connection, options)
    known = _report_invalid_indexes(connection)
    for attempt in range(1, options.ddl_retries + 2):
        try:
            migrate()
            break
        except DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None)
            if error.connection_invalidated:
                raise CommandError(
                    f"The connection to the database broke: the revision under way is rolled back, finished "
                    f"ones stay. Run it again once the database answers. It says: {error.orig}"
                ) from error
            connection.rollback()
            connection.execute(text(_lock_timeout(options)))
            connection.commit()
            invalid = _report_invalid_indexes(connection, known)
            if code in EXPLAINED:
                raise CommandError(f"{EXPLAINED[code]} The database says: {error.orig}") from None
            # With half an index there, another try would find the name taken, or be content with it.
            if code not in {LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED} or invalid:
                raise CommandError(
                    f"A revision failed and was rolled back; those before it stay. {error}\n"
                    "For the whole traceback, put --raiseerr behind alembic."
                ) from error
            _pause(attempt, options)
    _flush(connection)
    _report_invalid_indexes(connection, known)


def _set_up(connection: Connection, options: Options) -> None:
    """Set up the session, with SET since a pooler refuses options at the start of a connection."""
    timeout = _lock_timeout(options)
    connection.execute(text(timeout))
    # A transaction for each revision, but no wait for the disk after each of them, see _flush.
    connection.execute(text("SET synchronous_commit = off"))
    connection.commit()
    notice_lost_clients(connection)
    # The server then notices within half a second that this process was killed, even while a long
    # statement runs. Some systems don't offer it.
    with suppress(DBAPIError):
        connection.execute(text("SET client_connection_check_interval = 500"))
    connection.commit()

    # Nothing queues behind what runs CONCURRENTLY, and giving up would leave an invalid index.
    # https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    @event.listens_for(connection, "before_cursor_execute")
    def wait_as_long_as_it_takes(_: Any, cursor: Any, statement: str, *more: Any) -> None:
        if "CONCURRENTLY" in statement.upper():
            cursor.execute("SET lock_timeout = 0")

    @event.listens_for(connection, "after_cursor_execute")
    def wait_no_longer(connection: Connection, _: Any, statement: str, *more: Any) -> None:
        if "CONCURRENTLY" in statement.upper():
            connection.connection.cursor().execute(timeout)


def _flush(connection: Connection) -> None:
    """Wait until all that was committed is on disk; the order in which it gets there is never in doubt.

    https://www.postgresql.org/docs/current/wal-async-commit.html
    """
    connection.execute(text("SET synchronous_commit = on"))
    # Only a transaction with a number of its own is written, and with it all that came before.
    connection.execute(text("SELECT pg_current_xact_id()"))
    connection.commit()


def _pause(attempt: int, options: Options) -> None:
    if attempt > options.ddl_retries:
        raise CommandError(
            f"A table stayed in use: no lock within {options.ddl_lock_timeout:g} s, tried {attempt} times. "
            "Finished revisions stay. End the long transaction (pg_stat_activity shows it) or try again at a "
            "quieter time. MIGRATE_DDL_LOCK_TIMEOUT and MIGRATE_DDL_RETRIES set how patient to be."
        )
    seconds = min(0.5 * 2**attempt, 15)
    log.warning(
        "A table is in use: rolled back to let traffic through, try %d follows in %g s.", attempt + 1, seconds
    )
    time.sleep(seconds)


def _lock_timeout(options: Options) -> str:
    # For the server 0 means for ever.
    return f"SET lock_timeout = {max(1, min(int(options.ddl_lock_timeout * 1000), 2**31 - 1))}"


def _report_invalid_indexes(connection: Connection, known: Set[str] = frozenset()) -> frozenset[str]:
    """Name the indexes that a failed CREATE INDEX CONCURRENTLY left, but for the `known`; return them."""
    connection.rollback()
    indexes = frozenset(connection.scalars(INVALID_INDEXES)) - known
    connection.rollback()
    for index in sorted(indexes):
        log.warning(
            "The index %s is invalid, left half-made. Remove it: DROP INDEX CONCURRENTLY %s;", index, index
        )
    return indexes
