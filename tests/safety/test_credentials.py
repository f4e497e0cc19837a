"""No credential breaks the connection, and none is shown."""

import json
import os
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.support.code import Code
from tests.support.servers import Database, Server

# All that PostgreSQL takes: names of up to 63 bytes, no NUL; the environment adds nothing to that.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
NASTY = st.sampled_from(
    [
        "p%40ss",
        "p@ss/w:rd#1",
        "%(here)s",
        "a=b c",
        "postgresql://x:y@z/w",
        "'",
        '"',
        "\\\\",
        "?a=b&c",
        " ",
        "ü😀",
        "$HOME",
    ]
)
NAMES = (TEXT | NASTY).filter(lambda name: len(name.encode()) <= 63 and not name.startswith("pg_"))
BLANKS = " \t\r\n\u00a0\u200b\ufeff"
EXAMPLES = int(os.environ.get("CREDENTIAL_EXAMPLES", "60"))


def seen(name: str) -> bool:
    return name.isprintable() and name == name.strip()


def test_any_credential_connects(code: Code, debian: Server) -> None:
    """One process of the workspace's own settings and engine serves all examples, a line each."""
    process = subprocess.Popen(
        [code.python, "-c", PROBE],
        cwd=code.path,
        env=code.environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    questions, answers = process.stdin, process.stdout

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(user=NAMES, password=TEXT | NASTY, database=NAMES)
    def connects(user: str, password: str, database: str) -> None:
        role, name = sql.Identifier(user), sql.Identifier(database)
        with debian.connect() as admin:
            if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone():
                return
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                return
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 STRATEGY file_copy").format(
                    name, role
                )
            )
            try:
                env = {
                    "DB_HOST": debian.host,
                    "DB_PORT": str(debian.port),
                    "DB_USER": user,
                    "DB_PASS": password,
                    "DB_DATABASE": database,
                }
                # What can't be seen at a name's place or a password's ends is meant by nobody, but for who encodes it.
                env["AS_URL"] = (
                    "" if seen(user) and seen(database) and password == password.strip(BLANKS) else "yes"
                )
                questions.write(json.dumps(env) + "\n")
                questions.flush()
                assert json.loads(answers.readline()) == {"user": user, "database": database, "shown": False}
            finally:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
                admin.execute(sql.SQL("DROP ROLE {}").format(role))

    try:
        connects()
    finally:
        questions.close()
        process.wait(10)


PROBE = """
import json, sys
from urllib.parse import quote
from sqlalchemy import URL, create_engine, pool, text
from chassis.database.settings import DatabaseSettings
from chassis.database.url import database_url, migration_url
for line in sys.stdin:
    env = json.loads(line)
    try:
        given = env
        if env.pop("AS_URL"):
            url = URL.create("postgresql", *(env[f"DB_{name}"] for name in ("USER", "PASS", "HOST")))
            url = url.set(port=int(env["DB_PORT"]))
            # The name of a database is taken as it is from a path, where only these mean something.
            given = {"DATABASE_URL": url.render_as_string(hide_password=False) + "/" + quote(env["DB_DATABASE"], safe="")}
        settings = DatabaseSettings.from_env(given)
        with create_engine(migration_url(settings), poolclass=pool.NullPool).connect() as connection:
            user, database = connection.execute(text("SELECT current_user, current_database()")).one()
        engine = create_engine(database_url(settings))
        secret = env["DB_PASS"]
        # A password that a name happens to hold, however it is quoted, is shown as such.
        named = any(secret in said for said in (str(engine.url.set(password=None)), env["DB_USER"], env["DB_DATABASE"]))
        shown = len(secret) > 5 and not named and any(secret in said for said in (repr(settings), str(settings), repr(engine), str(engine.url)))
        answer = {"user": user, "database": database, "shown": shown}
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
"""


@pytest.mark.full
def test_no_command_shows_the_password(code: Code, database: Database) -> None:
    """Whatever the command and however it ends, in what is printed and in the list of processes."""
    secret = str(database.server.password)
    commands = [
        ("upgrade", "head"),
        ("upgrade", "head", "--sql"),
        ("current", "--verbose"),
        ("history", "--verbose", "--indicate-current"),
        ("check",),
        ("downgrade", "base"),
        ("upgrade", "nowhere"),
        ("--raiseerr", "upgrade", "nowhere"),
    ]
    code.add("raises", 'raise RuntimeError("boom")')
    for env in (database.env, {**database.env, "DB_DATABASE": "nowhere", "MIGRATE_CONNECT_TIMEOUT": "0"}):
        for command in commands:
            process = code.start(env, *command)
            arguments = subprocess.run(
                ["ps", "-o", "args=", "-p", str(process.pid)], capture_output=True, text=True, check=False
            )
            output, _ = process.communicate(timeout=60)
            assert secret not in output + arguments.stdout, command
            assert "p%40ss" not in output, command
