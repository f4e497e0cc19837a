"""python -m chassis roles makes the two roles, as an administrator who is no superuser: those of cloud providers are none."""

import subprocess

import psycopg
import pytest
from psycopg import errors, sql

from tests.support.code import Code
from tests.support.servers import NUMBERS, Database, Server

ODD = "o'd\"d %s {x} pass-word ü"


@pytest.fixture(params=["debian", pytest.param("embedded", marks=pytest.mark.full)])
def database(request: pytest.FixtureRequest) -> Database:
    """A database of an administrator's own."""
    server: Server = request.getfixturevalue(request.param)
    admin = f"administrator_{next(NUMBERS)}"
    server.execute(f"CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD 'admins-own'")
    database = server.new_database()
    server.execute(f"ALTER DATABASE {database.name} OWNER TO {admin}")
    database.execute(f"GRANT ALL ON SCHEMA public TO {admin} WITH GRANT OPTION")
    return Database(Server(server.host, server.port, admin, "admins-own"), database.name)


def settings(database: Database, app: str = "app", password: str = ODD) -> dict[str, str]:
    server = database.server
    return {
        "RUNTIME_ENV": "prd",
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_DATABASE": database.name,
        "DB_USER": f"{app} of {database.name}",
        "DB_PASS": password,
        "MIGRATE_DB_USER": f"migrator of {database.name}",
        "MIGRATE_DB_PASS": "migrators-own",
        "ADMIN_DB_USER": server.user,
        "ADMIN_DB_PASS": server.password or "",
    }


def make_roles(code: Code, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [str(code.python), "-m", "chassis", "roles"]
    return subprocess.run(
        command, cwd=code.path, env=code.environment(env), capture_output=True, text=True, check=False
    )


def connect(env: dict[str, str], role: str = "DB") -> psycopg.Connection:
    return psycopg.connect(
        host=env["DB_HOST"],
        port=env["DB_PORT"],
        dbname=env["DB_DATABASE"],
        user=env[f"{role}_USER"],
        password=env[f"{role}_PASS"],
        autocommit=True,
    )


def test_one_migrates_and_the_other_serves(code: Code, database: Database) -> None:
    env = settings(database)
    for _ in range(2):
        done = make_roles(code, env)
        assert done.returncode == 0, done.stderr
    migrating = {**env, "DB_USER": env["MIGRATE_DB_USER"], "DB_PASS": env["MIGRATE_DB_PASS"]}
    exit_code, printed = code.alembic(migrating, "upgrade", "head")
    assert exit_code == 0, printed
    assert make_roles(code, env).returncode == 0
    with connect(env) as app:
        app.execute("INSERT INTO conversations (id, revision) VALUES ('1', '1')")
        assert app.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        for statement in (
            "DELETE FROM alembic_version",
            "CREATE TABLE mine (id int)",
            "DROP TABLE conversations",
            "CREATE ROLE friend",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                app.execute(statement)


@pytest.mark.full
def test_another_name_or_password_takes_over_while_the_old_one_serves(code: Code, database: Database) -> None:
    first, second = settings(database), settings(database, "app_2", "another")
    assert make_roles(code, first).returncode == 0
    migrating = {**first, "DB_USER": first["MIGRATE_DB_USER"], "DB_PASS": first["MIGRATE_DB_PASS"]}
    assert code.alembic(migrating, "upgrade", "head")[0] == 0
    with connect(first) as old:
        done = make_roles(code, second)
        assert done.returncode == 0, done.stderr
        with connect(second) as new:
            new.execute("INSERT INTO conversations (id, revision) VALUES ('1', '1')")
        assert old.execute("SELECT count(*) FROM conversations").fetchone() == (1,)
    changed = {**first, "DB_PASS": "changed"}
    assert make_roles(code, changed).returncode == 0
    connect(changed).close()
    if database.server.host == "127.0.0.1":  # the embedded one trusts everybody
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(first)


def test_what_ends_with_a_line_break_as_files_do_is_what_the_service_reads(
    code: Code, database: Database
) -> None:
    env = settings(database)
    done = make_roles(
        code,
        {name: f"{value}\n" if "_USER" in name or "_PASS" in name else value for name, value in env.items()},
    )
    assert done.returncode == 0, done.stderr
    with connect(env), connect(env, "MIGRATE_DB"):
        pass


@pytest.mark.full
def test_the_server_sees_no_password(code: Code, database: Database, debian: Server) -> None:
    env = settings(database)
    assert make_roles(code, env).returncode == 0
    if database.server.host == debian.host:
        query = sql.SQL("SELECT rolpassword FROM pg_authid WHERE rolname = {}").format(env["DB_USER"])
        assert debian.rows(query.as_string())[0][0].startswith("SCRAM-SHA-256$")


@pytest.mark.full
def test_what_is_missing_or_wrong_is_said_in_a_line(code: Code, database: Database) -> None:
    env = settings(database)
    done = make_roles(code, {name: value for name, value in env.items() if name != "MIGRATE_DB_PASS"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The roles are as they were: MIGRATE_DB_PASS is missing.")
    powerless = f"powerless_{next(NUMBERS)}"
    with connect(env, "ADMIN_DB") as admin:
        admin.execute(f"CREATE ROLE {powerless} LOGIN PASSWORD 'p'")
    done = make_roles(code, {**env, "ADMIN_DB_USER": powerless, "ADMIN_DB_PASS": "p"})
    assert done.returncode == 1
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr
