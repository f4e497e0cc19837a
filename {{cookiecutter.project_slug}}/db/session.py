"""Engines and sessions, sync and async, from one psycopg 3 URL."""

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from db.settings import database_url

# A host that drops packets would otherwise hold a request for minutes.
CONNECT_SECONDS = "10"


def sync_engine(url: URL | None = None, *, application_name: str = "script") -> Engine:
    """Make a sync engine, for scripts and tests. The caller disposes of it.

    `application_name` is what PostgreSQL shows of the connection, in `pg_stat_activity` for example.
    """
    return create_engine(_with_defaults(url, application_name))


def async_engine(url: URL | None = None, *, application_name: str = "api") -> AsyncEngine:
    """Make an async engine with a pool, for the API. The caller disposes of it."""
    # A pooler in transaction mode may give the next statement to another server connection, which knows
    # nothing of a statement prepared on the last one.
    # https://www.psycopg.org/psycopg3/docs/advanced/prepare.html#using-prepared-statements-with-pgbouncer
    return create_async_engine(
        _with_defaults(url, application_name),
        connect_args={"prepare_threshold": None},
        pool_pre_ping=True,
        hide_parameters=True,  # what users say has no place in the log
    )


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Make the factory of the sessions that the API opens, one for each unit of work."""
    return async_sessionmaker(engine, expire_on_commit=False)


def _with_defaults(url: URL | None, application_name: str) -> URL:
    """Add what libpq should know, unless the URL says otherwise."""
    url = url or database_url()
    defaults = {"application_name": application_name, "connect_timeout": CONNECT_SECONDS}
    return url.set(query={**defaults, **url.query})
