"""Random histories: the lint never fails by itself, and what it calls safe stops no reader, however many rows there are."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from chassis.lint.trial import database
from chassis.tests.lint.cases import BASE
from chassis.tests.lint.histories import lint, python_of

# In a full run, such as the template's own, two hundred.
EXAMPLES = int(os.environ.get("LINT_EXAMPLES", "20"))
MANY = 400_000
# A reader that waits longer was stopped; what is safe takes a few milliseconds, on a busy machine some more.
LOCK_TIMEOUT = 0.5

USERS = ("age", "score", "name", "bio", "level", "unmapped", "born")
TYPES = ("text", "bigint", "numeric(12, 2)", "varchar(60)", "timestamptz", "jsonb")
columns = st.sampled_from(USERS)
statements = st.one_of(
    st.builds("ALTER TABLE users ADD COLUMN IF NOT EXISTS x{} {} {}".format, st.integers(0, 2), st.sampled_from(TYPES),
              st.sampled_from(("", "DEFAULT NULL", "NOT NULL", "UNIQUE"))),
    st.sampled_from((
        "ALTER TABLE users ADD COLUMN n serial", "ALTER TABLE users ADD COLUMN r float DEFAULT random()",
        "ALTER TABLE users ADD COLUMN w timestamptz DEFAULT now()", "ALTER TABLE orders ALTER number TYPE bigint",
        "ALTER TABLE orders ALTER total TYPE numeric(14, 2)", "ALTER TABLE orders ALTER status TYPE text",
        "UPDATE users SET bio = name WHERE bio IS NULL", "UPDATE users SET bio = 'x' WHERE id = 4711",
        "DELETE FROM orders WHERE id < 10", "LOCK TABLE users IN SHARE MODE", "SELECT pg_sleep(0.01)",
        "alone: CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON users (age)", "alone: VACUUM FULL orders",
        "CREATE INDEX IF NOT EXISTS j ON orders (number)", "alone: DROP INDEX CONCURRENTLY IF EXISTS ix_users_name",
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (number > -2147483649) NOT VALID",
        "ALTER TABLE orders VALIDATE CONSTRAINT c", "ALTER TABLE orders DROP CONSTRAINT IF EXISTS c",
        "DO $$ BEGIN PERFORM count(*) FROM orders WHERE note LIKE '%x%'; END $$",
        "COMMENT ON TABLE users IS 'people'", "CREATE TABLE IF NOT EXISTS fresh (id integer PRIMARY KEY, word text)",
        "INSERT INTO tags (id, word) SELECT n, 'x' FROM generate_series(2000, 2010) n", "REFRESH MATERIALIZED VIEW totals",
        "CREATE TRIGGER t AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION nothing()",
        "TRUNCATE leftover", "DROP TABLE IF EXISTS leftover", "alone: REINDEX INDEX CONCURRENTLY ix_users_name",
    )),
    st.builds("ALTER TABLE users ALTER {} {}".format, columns,
              st.sampled_from(("SET NOT NULL", "DROP NOT NULL", "SET DEFAULT NULL", "SET STATISTICS 50"))),
    st.builds("ALTER TABLE users ALTER {0} TYPE {1} USING {0}::text::{1}".format, columns, st.sampled_from(TYPES)),
    st.builds("ALTER TABLE users {} COLUMN {} {}".format, st.just("RENAME"), columns, st.just("TO renamed")),
    st.builds("ALTER TABLE users DROP COLUMN IF EXISTS {}".format, columns),
)  # fmt: skip
histories = st.lists(st.lists(statements, min_size=1, max_size=2), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def large(postgres: Engine) -> Iterator[URL]:
    """The tables of the cases with so many rows that whatever goes through all of them takes its time."""
    with database(postgres.url) as connection:
        connection.exec_driver_sql(BASE.replace("%", "%%"))
        for statement in (
            "INSERT INTO users (email, name, age, mood, bio, level, unmapped) SELECT 'user' || n, 'name', n % 90, 'ok', "
            "repeat('x', 100), 'a', 'b' FROM generate_series(1, :n) n",
            "INSERT INTO orders (user_id, total, number, note) SELECT n, 1, n, repeat('x', 100) FROM generate_series(1, :n) n",
            "REFRESH MATERIALIZED VIEW totals",
        ):
            connection.execute(text(statement), {"n": MANY} if ":n" in statement else {})
        connection.commit()
        yield connection.engine.url


@contextmanager
def copy_of(large: URL) -> Iterator[Connection]:
    admin = create_engine(large.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as keeper:
        keeper.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :d"),
            {"d": large.database},
        )
        keeper.exec_driver_sql(f"CREATE DATABASE large TEMPLATE {large.database} STRATEGY file_copy")
        try:
            engine = create_engine(large.set(database="large"), poolclass=NullPool)
            with engine.connect() as connection:
                yield connection
        finally:
            keeper.exec_driver_sql("DROP DATABASE IF EXISTS large WITH (FORCE)")


def longest_wait(large: URL, history: list[list[str]]) -> float:
    """Run the history beside a reader of each table, and return how long the reader waited at most, in seconds."""
    waits = [0.0]
    over = threading.Event()

    def read(url: URL, table: str) -> None:
        with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
            while not over.is_set():
                began = time.monotonic()
                try:
                    connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1")
                except DBAPIError:
                    return  # it is gone, which nobody reads any more
                waits.append(time.monotonic() - began)
                time.sleep(0.005)

    with copy_of(large) as connection:
        readers = [
            threading.Thread(target=read, args=(connection.engine.url, table))
            for table in ("users", "orders", "totals")
        ]
        for reader in readers:
            reader.start()
        try:
            for revision in history:
                for step in revision:
                    if step.startswith("alone: "):
                        connection.commit()
                        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                        alone.exec_driver_sql(step.removeprefix("alone: ").replace("%", "%%"))
                        connection.commit()
                        connection.execution_options(isolation_level="READ COMMITTED")
                    else:
                        connection.exec_driver_sql(step.replace("%", "%%"))
                connection.commit()
        finally:
            connection.rollback()
            over.set()
            for reader in readers:
                reader.join()
    return max(waits)


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(history=histories)
def test_what_is_called_safe_stops_no_reader(postgres: Engine, large: URL, history: list[list[str]]) -> None:
    with TemporaryDirectory() as folder:
        report = lint(postgres.url, Path(folder), *map(python_of, history))
    event("safe" if not report.findings else "unsafe")
    if not report.findings:
        # Once more where something else on the machine was in the way.
        assert any(longest_wait(large, history) < LOCK_TIMEOUT for _ in range(2)), history


def test_a_reader_that_is_stopped_would_be_noticed(large: URL) -> None:
    assert longest_wait(large, [["ALTER TABLE users ADD COLUMN n serial"]]) > LOCK_TIMEOUT
