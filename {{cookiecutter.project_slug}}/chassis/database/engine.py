"""Engines and sessions, sync and async, from one psycopg 3 URL."""

import selectors
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from chassis.database.url import database_url

# A host that drops packets would otherwise hold a request for minutes.
CONNECT_SECONDS = "10"
# All that are made are kept: to make one for a busy moment costs several times what it is made for.
CONNECTIONS = 15


class _Returned(Connection):
    """Gives its place in the pool back where its task is cancelled before it is made, as when a caller leaves.

    SQLAlchemy sets the isolation level in between, which awaits, and leaves the connection to the garbage collector
    (2.1.9; https://github.com/sqlalchemy/sqlalchemy/issues/13548 is the same for new connections).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            super().__init__(*arguments, **options)
        except BaseException as error:
            # It may have the isolation level of sessions already, and no other user expects that.
            if (taken := vars(self).get("_dbapi_connection")) is not None:
                taken.invalidate(error)
            raise


class Sessions(async_sessionmaker[AsyncSession]):
    """Opens sessions, one for each unit of work.

    For what is a single statement `engine` is faster: the statement is its own transaction there, which
    takes one round trip instead of three.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        transactional = engine.execution_options(isolation_level="READ COMMITTED")
        transactional.sync_engine._connection_cls = _Returned
        super().__init__(transactional, expire_on_commit=False)
        self.engine = engine


def sync_engine(url: URL | None = None, *, application_name: str = "script") -> Engine:
    """Make a sync engine, for scripts and tests. The caller disposes of it.

    `application_name` is what PostgreSQL shows of the connection, in `pg_stat_activity` for example.
    """
    return create_engine(_with_defaults(url, application_name))


def async_engine(url: URL | None = None, *, application_name: str = "api") -> AsyncEngine:
    """Make an async engine with a pool, for the API. The caller disposes of it.

    Each statement on it is a transaction of its own; transactions of several are for `Sessions`.
    """
    engine = create_async_engine(
        _with_defaults(url, application_name),
        isolation_level="AUTOCOMMIT",
        # A pooler in transaction mode may give the next statement to another server connection, which
        # knows nothing of a statement prepared on the last one.
        # https://www.psycopg.org/psycopg3/docs/advanced/prepare.html#using-prepared-statements-with-pgbouncer
        connect_args={"prepare_threshold": None},
        pool_size=CONNECTIONS,
        max_overflow=0,
        hide_parameters=True,  # what users say has no place in the log
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def session_factory(engine: AsyncEngine) -> Sessions:
    """Make the factory of the sessions that the API opens."""
    return Sessions(engine)


def _refuse_closed(connection: Any, *_: object) -> None:
    """Notice that the server has closed a connection while nobody used it, and with it most likely all.

    There is something to read then. `pool_pre_ping` learns the same by a query before each use.
    """
    if connection.closed:
        raise InvalidatePoolError
    with selectors.DefaultSelector() as selector:
        selector.register(connection.driver_connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):
            raise InvalidatePoolError


def _with_defaults(url: URL | None, application_name: str) -> URL:
    """Add what libpq should know, unless the URL says otherwise."""
    url = url or database_url()
    defaults = {"application_name": application_name, "connect_timeout": CONNECT_SECONDS}
    return url.set(query={**defaults, **url.query})
