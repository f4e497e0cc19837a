"""Each state in which a database can't be migrated has a message of one or two lines."""

import time

import pytest

from tests.support.code import Code
from tests.support.marks import quick_are
from tests.support.servers import PASSWORD, Database, Server, debian_server, free_port, wait_until

QUICK = {"MIGRATE_CONNECT_TIMEOUT": "1"}

STATES = [
    ("absent", {"DB_PORT": "PORT"}, "Nothing answers at the database's address"),
    ("no such host", {"DB_HOST": "no-such-host.invalid"}, "host name can't be resolved"),
    ("wrong password", {"DB_PASS": "wrong"}, "refuses the user or the password"),
    (
        "two addresses",
        {"DB_HOST": "127.0.0.2,127.0.0.1", "DB_PASS": "wrong"},
        "refuses the user or the password",
    ),
    ("no password", {"DB_PASS": ""}, "wants a password"),
    ("no such database", {"DB_DATABASE": "nowhere"}, 'The database "nowhere" does not exist: create it'),
    ("no TLS", {"DB_SSLMODE": "require"}, "offers no TLS, but DB_SSLMODE asks for it"),
    ("bad TLS mode", {"DB_SSLMODE": "yes"}, "DB_SSLMODE must be one of"),
    (
        "no certificate",
        {"DB_SSLMODE": "verify-full", "DB_SSLROOTCERT": "/nowhere.pem"},
        "a file that isn't there",
    ),
    ("no user", {"DB_USER": ""}, "DB_USER is missing"),
    ("bad port", {"DB_PORT": "x"}, "DB_PORT must be a number"),
    ("bad option", {"MIGRATE_LOCK_TIMEOUT": "soon"}, "MIGRATE_LOCK_TIMEOUT must be a number"),
    (
        "production without settings",
        {"RUNTIME_ENV": "prd", "DB_HOST": ""},
        "No database is set for RUNTIME_ENV=prd",
    ),
    ("unreadable URL", {"DATABASE_URL": f"postgres//{PASSWORD}"}, "DATABASE_URL can't be read"),
]


def check_message(exit_code: int, output: str, expected: str) -> None:
    assert exit_code == 255, output
    assert expected in output
    assert "Traceback" not in output
    assert PASSWORD not in output
    assert len(output.splitlines()) <= 6, output


@pytest.mark.parametrize(
    ("env", "expected"),
    quick_are(
        ["absent", "wrong password", "no such database"],
        {name: (env, expected) for name, env, expected in STATES},
    ),
)
def test_a_state_has_its_message(code: Code, database: Database, env: dict[str, str], expected: str) -> None:
    env = {name: str(free_port()) if value == "PORT" else value for name, value in env.items()}
    exit_code, output = code.alembic({**database.env, **QUICK, **env}, "upgrade", "head")
    check_message(exit_code, output, expected)
    assert database.sessions() == []


@pytest.mark.full
def test_out_of_connections(code: Code, debian: Server, database: Database) -> None:
    debian.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0 PASSWORD 'few'")
    exit_code, output = code.alembic(
        {**database.env, **QUICK, "DB_USER": "few", "DB_PASS": "few"}, "upgrade", "head"
    )
    check_message(exit_code, output, "no connection left")


@pytest.mark.full
def test_a_role_that_may_not(code: Code, debian: Server, database: Database) -> None:
    debian.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    exit_code, output = code.alembic(
        {**database.env, "DB_USER": "reader", "DB_PASS": "reader"}, "upgrade", "head"
    )
    check_message(exit_code, output, "Migrate as the role that owns the tables")


@pytest.mark.full
def test_a_read_only_database(code: Code, database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    check_message(exit_code, output, "Migrate on the primary")


@pytest.mark.full
def test_a_database_that_starts_late(code: Code) -> None:
    """A server that is started after the migration is waited for, and then migrated."""
    port = free_port()
    late = Server("127.0.0.1", port, "admin", PASSWORD)
    env = {**Database(late, "postgres").env, "MIGRATE_CONNECT_TIMEOUT": "60"}
    migration = code.start(env, "upgrade", "head")
    time.sleep(1.5)
    with debian_server(port):
        output, _ = migration.communicate(timeout=60)
        assert migration.returncode == 0, output
        assert "Nothing answers at the database's address" in output
        assert late.rows("SELECT version_num FROM alembic_version") == [(code.head,)]


@pytest.mark.full
def test_a_role_that_may_only_write_rows_of_the_version_table(
    code: Code, debian: Server, database: Database
) -> None:
    """It can't leave the record for older images, and what is migrated is migrated all the same."""
    debian.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    database.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)")
    database.execute("GRANT ALL ON alembic_version TO guest; GRANT CREATE ON SCHEMA public TO guest")
    exit_code, output = code.alembic(
        {**database.env, "DB_USER": "guest", "DB_PASS": "guest"}, "upgrade", "head"
    )
    assert exit_code == 0, output
    assert "isn't recorded for older images" in output
    assert "Traceback" not in output


@pytest.mark.full
def test_a_role_that_may_not_read_the_version_table(code: Code, debian: Server, database: Database) -> None:
    debian.execute("CREATE ROLE blind LOGIN PASSWORD 'blind'")
    database.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)")
    exit_code, output = code.alembic(
        {**database.env, "DB_USER": "blind", "DB_PASS": "blind"}, "upgrade", "head"
    )
    check_message(exit_code, output, "The revision can't be read.")


@pytest.mark.full
@pytest.mark.parametrize("which", ["gate", "worker"])
def test_a_connection_that_breaks(code: Code, database: Database, which: str) -> None:
    """However the server ends one of the two connections, the end is in order."""
    code.add("slow", 'op.execute("SELECT pg_sleep(3)")')
    migration = code.start(database.env, "upgrade", "head")
    state = "active" if which == "worker" else "idle"
    wait_until(lambda: database.running("pg_sleep"), 20)
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        f" AND application_name LIKE 'alembic%' AND state = '{state}'"
    )
    output, _ = migration.communicate(timeout=60)
    assert "Traceback" not in output
    if which == "worker":
        assert migration.returncode == 255
        assert "The connection to the database broke" in output
        assert code.alembic(database.env, "upgrade", "head")[0] == 0
    else:
        assert migration.returncode == 0, output
    assert database.rows("SELECT version_num FROM alembic_version") == [("slow",)]


@pytest.mark.full
def test_a_revision_whose_file_is_gone_from_the_middle(code: Code, database: Database) -> None:
    code.add("first", "pass")
    code.add("second", "pass")
    next((code.path / "db/migrations/versions").glob("*-first.py")).unlink()
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "A revision follows 'first', which has no file" in output
    assert "Traceback" not in output
