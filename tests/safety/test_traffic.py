"""A migration wants a table that a long transaction holds, while readers and writers keep going."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.support.code import Code
from tests.support.servers import Database, wait_until

LOCK_TIMEOUT = 0.5
MARGIN = 1.5  # for two cores that other tests use too


@contextmanager
def traffic(database: Database) -> Iterator[list[float]]:
    """Read and write the table in two threads; yields the list of how long each statement took."""
    waits: list[float] = []
    ended = threading.Event()

    def work(statement: str) -> None:
        with database.connect(application_name="traffic") as connection:
            while not ended.is_set():
                began = time.monotonic()
                connection.execute(statement)
                waits.append(time.monotonic() - began)
                time.sleep(0.01)

    statements = ("SELECT count(*) FROM orders", "INSERT INTO orders VALUES (1)")
    threads = [threading.Thread(target=work, args=(statement,)) for statement in statements]
    for thread in threads:
        thread.start()
    try:
        yield waits
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def orders(code: Code, database: Database) -> Code:
    """Code that adds a column to a table which is in use."""
    code.add("orders", 'op.create_table("orders", sa.Column("id", sa.Integer))')
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    code.add("column", 'op.add_column("orders", sa.Column("total", sa.Integer))')
    return code


def migrate_beside(database: Database, code: Code, retries: int, hold: float) -> tuple[int, str, list[float]]:
    """Migrate while a transaction holds the table for `hold` seconds; returns code, output, traffic's waits."""
    env = {**database.env, "MIGRATE_DDL_LOCK_TIMEOUT": str(LOCK_TIMEOUT), "MIGRATE_DDL_RETRIES": str(retries)}
    with database.connect() as holder, traffic(database) as waits:
        holder.execute("BEGIN")
        holder.execute("SELECT * FROM orders LIMIT 1")
        migration = code.start(env, "upgrade", "head")
        wait_until(lambda: database.waiting() or migration.poll() is not None, 20)
        time.sleep(hold)
        holder.execute("ROLLBACK")
        output, _ = migration.communicate(timeout=60)
    return migration.returncode, output, waits


def test_it_retries_and_lands_when_the_way_is_free(orders: Code, database: Database) -> None:
    exit_code, output, waits = migrate_beside(database, orders, retries=5, hold=2.5)
    assert exit_code == 0, output
    assert "A table is in use: rolled back to let traffic through, try 2" in output
    assert database.rows("SELECT total FROM orders LIMIT 1") == [(None,)]
    assert max(waits) < LOCK_TIMEOUT + MARGIN
    assert len(waits) > 50


@pytest.mark.full
def test_it_gives_up_with_a_clear_error(orders: Code, database: Database) -> None:
    exit_code, output, waits = migrate_beside(database, orders, retries=1, hold=4)
    assert exit_code == 255
    assert "FAILED: A table stayed in use: no lock within 0.5 s, tried 2 times." in output
    assert "Traceback" not in output
    assert max(waits) < LOCK_TIMEOUT + MARGIN
    # What was finished stays, and the next run goes on from there.
    assert database.rows("SELECT version_num FROM alembic_version") == [("orders",)]
    assert orders.alembic(database.env, "upgrade", "head")[0] == 0


@pytest.mark.full
def test_an_option_of_one_command_wins_over_the_environment(orders: Code, database: Database) -> None:
    env = {**database.env, "MIGRATE_DDL_RETRIES": "50"}
    with database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT * FROM orders LIMIT 1")
        exit_code, output = orders.alembic(
            env, "-x", "ddl_retries=0", "-x", "ddl_lock_timeout=0.2", "upgrade", "head"
        )
        holder.execute("ROLLBACK")
    assert exit_code == 255
    assert "no lock within 0.2 s, tried 1 times" in output


@pytest.mark.full
def test_an_index_built_concurrently_is_not_given_up(orders: Code, database: Database) -> None:
    """It stops no traffic while it waits, and giving up would leave an invalid index."""
    orders.add(
        "index",
        "with op.get_context().autocommit_block():\n"
        '    op.create_index("ix_orders_id", "orders", ["id"], postgresql_concurrently=True)',
    )
    assert orders.alembic(database.env, "upgrade", "column")[0] == 0
    exit_code, output, waits = migrate_beside(database, orders, retries=0, hold=2)
    assert exit_code == 0, output
    assert max(waits) < MARGIN
    assert database.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_orders_id'::regclass") == [
        (True,)
    ]


@pytest.mark.full
def test_an_invalid_index_is_named_with_the_command_that_removes_it(orders: Code, database: Database) -> None:
    database.execute("INSERT INTO orders VALUES (1), (1)")
    orders.add(
        "unique",
        "with op.get_context().autocommit_block():\n"
        '    op.create_index("uq_orders_id", "orders", ["id"], unique=True, postgresql_concurrently=True)',
    )
    exit_code, output = orders.alembic(database.env, "upgrade", "head")
    assert exit_code != 0
    command = "DROP INDEX CONCURRENTLY public.uq_orders_id;"
    assert command in output
    database.execute(command)
    database.execute("TRUNCATE orders")
    exit_code, output = orders.alembic(database.env, "upgrade", "head")
    assert (exit_code, "DROP INDEX" in output) == (0, False), output


@pytest.mark.full
def test_a_relative_downgrade_never_goes_further_than_asked(orders: Code, database: Database) -> None:
    """A step that was tried again would count from a place that is one step further."""
    assert orders.alembic(database.env, "upgrade", "head")[0] == 0
    orders.add("other", 'op.create_table("other")', 'op.drop_table("other")')
    versions = orders.path / "db/migrations/versions"
    column = next(versions.glob("*-column.py"))
    column.write_text(
        column.read_text(encoding="utf-8").replace("    pass\n", '    op.drop_column("orders", "total")\n'),
        encoding="utf-8",
    )
    assert orders.alembic(database.env, "upgrade", "head")[0] == 0
    with database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT * FROM orders LIMIT 1")
        downgrade = orders.start({**database.env, "MIGRATE_DDL_LOCK_TIMEOUT": "0.3"}, "downgrade", "-2")
        wait_until(lambda: database.rows("SELECT to_regclass('other')") == [(None,)], 20)
        time.sleep(0.6)
        holder.execute("ROLLBACK")
        output, _ = downgrade.communicate(timeout=60)
    assert downgrade.returncode == 255
    assert "part of the way is done" in output
    assert database.rows("SELECT version_num FROM alembic_version") == [("column",)]


@pytest.mark.full
def test_somebody_elses_invalid_index_stops_no_retry(orders: Code, database: Database) -> None:
    database.execute(
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t (a int); INSERT INTO elsewhere.t VALUES (1), (1)"
    )
    with database.connect() as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ix ON elsewhere.t (a)")
    exit_code, output, _ = migrate_beside(database, orders, retries=5, hold=1.5)
    assert exit_code == 0, output
    assert "try 2 follows" in output
    assert output.count("DROP INDEX CONCURRENTLY elsewhere.ix;") == 1


@pytest.mark.full
def test_an_index_that_somebody_builds_is_not_called_invalid(orders: Code, database: Database) -> None:
    database.execute("CREATE TABLE busy (a int)")
    with database.connect() as old, database.connect(application_name="builder") as builder:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT * FROM busy")
        build = threading.Thread(
            target=builder.execute, args=("CREATE INDEX CONCURRENTLY ix_busy ON busy (a)",)
        )
        build.start()
        wait_until(lambda: bool(database.rows("SELECT 1 FROM pg_index WHERE NOT indisvalid")), 20)
        exit_code, output = orders.alembic(database.env, "upgrade", "head")
        old.execute("ROLLBACK")
        build.join()
    assert exit_code == 0, output
    assert "ix_busy" not in output
