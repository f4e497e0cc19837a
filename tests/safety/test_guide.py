"""What db/SAFE_MIGRATIONS.md says is true: its example under traffic, its SQL, its tables."""

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.safety.test_reversibility import catalogue
from tests.support.code import Code
from tests.support.command_blocks import Block, broken_links, read_blocks, run_blocks, write_file
from tests.support.commands import UV, run
from tests.support.documents import rows_of
from tests.support.servers import Database, Server, certificates, debian_server, with_certificate
from tests.support.workspaces import Workspace

GUIDE = "db/SAFE_MIGRATIONS.md"
ROWS = 20_000
NUMBERS = count(1)

# One release's code as it runs: two threads that use its own class through SQLAlchemy, until standard
# input ends. A row that somebody else deleted meanwhile is no failure; any error and any wrong value is.
CLIENT = """
import json, sys, threading, time, uuid
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from chassis.database.engine import sync_engine
from db.tables.tickets import Ticket

name = sys.argv[1]
text = getattr(Ticket, name)
engine = sync_engine(application_name="client")
ended = threading.Event()
counts, failures, longest = {"write": 0, "read": 0}, [], 0.0


def write(session):
    said = str(uuid.uuid4())
    session.add(ticket := Ticket(conversation_id="c", **{name: said}))
    session.commit()
    id = ticket.id
    session.expire_all()
    assert session.scalar(select(text).where(Ticket.id == id)) == said, "the insert isn't read back"
    newest = session.scalars(select(Ticket).order_by(Ticket.created_at.desc()).limit(1)).one()
    newest.closed = not newest.closed
    session.commit()
    session.execute(update(Ticket).where(Ticket.id == id).values({name: said.upper()}))
    session.commit()
    assert session.scalar(select(text).where(Ticket.id == id)) == said.upper(), "the update isn't read back"


def read(session):
    for ticket in session.scalars(select(Ticket).order_by(Ticket.created_at.desc()).limit(20)):
        assert getattr(ticket, name), "a row has no text"


def work(what):
    global longest
    # On a busy machine there may be little traffic until it is to end.
    while not ended.is_set() or counts[what.__name__] <= 20:
        began = time.monotonic()
        try:
            with Session(engine) as session:
                what(session)
        except Exception as error:
            failures.append(repr(error)[:500])
        longest = max(longest, time.monotonic() - began)
        counts[what.__name__] += 1
        time.sleep(0.02)


with Session(engine) as session:
    read(session)
threads = [threading.Thread(target=work, args=(what,)) for what in (write, read)]
for thread in threads:
    thread.start()
print("runs", flush=True)
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"failures": failures, "longest": longest, **counts}))
"""


class Client:
    """A release that serves, in a process of its own."""

    def __init__(self, code: Path, python: Path, env: dict[str, str], column: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", CLIENT, column],
            cwd=code,
            env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "runs\n"

    def stop(self) -> dict[str, Any]:
        printed, _ = self._process.communicate("", timeout=30)
        report: dict[str, Any] = json.loads(printed)
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Deployment:
    """The example's releases: each one's code is kept as it was when it was deployed."""

    def __init__(self, workspace: Workspace, database: Database, env: dict[str, str], folder: Path) -> None:
        self.workspace, self.database, self.env, self.folder = workspace, database, env, folder
        self.python = workspace.path / ".venv/bin/python"
        self.clients: dict[str, Client] = {}
        self.reports: dict[str, dict[str, Any]] = {}

    def deploy(self, release: str, column: str) -> None:
        """Keep the code as it is now, commit it, and let it serve."""
        unwanted = shutil.ignore_patterns("__pycache__")
        for part in ("chassis", "db"):
            shutil.copytree(self.workspace.path / part, self.folder / release / part, ignore=unwanted)
        shutil.copy(self.workspace.path / "pyproject.toml", self.folder / release)
        self.workspace.run("git", "add", "-A")
        self.workspace.run("git", "commit", "-q", "-m", release)
        self.serve(release, column)

    def serve(self, release: str, column: str) -> None:
        self.clients[release] = Client(self.folder / release, self.python, self.env, column)

    def stop(self, release: str) -> None:
        self.reports[release] = self.clients.pop(release).stop()

    def both_serve(self, seconds: float = 1.5) -> None:
        """Let the releases that run go on side by side for a while."""
        with self.database.connect() as connection:
            connection.execute("SELECT pg_sleep(%s)", [seconds])


@pytest.fixture
def deployment(workspace: Workspace, database: Database, tmp_path: Path) -> Iterator[Deployment]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").symlink_to(shutil.which(UV) or UV)
    path = os.pathsep.join([str(workspace.path / ".venv/bin"), str(programs), os.environ["PATH"]])
    env = {**os.environ, **database.env, "PATH": path, "UV_NO_SYNC": "1"}
    found = Deployment(workspace, database, env, tmp_path)
    yield found
    for client in found.clients.values():
        client.kill()


def blocks_of(workspace: Workspace, document: str = GUIDE) -> list[Block]:
    return read_blocks(workspace.read(document), document)


@pytest.mark.full
def test_the_example_fails_no_request(deployment: Deployment) -> None:
    """All commands of the guide, in their order, while the releases of its example read and write."""
    workspace, database, env = deployment.workspace, deployment.database, deployment.env

    def release_0() -> None:
        """The table of the guide's first page, with rows, in use."""
        for block in blocks_of(workspace, "db/README.md"):
            if block.path == "db/tables/tickets.py":
                write_file(block, workspace.path)
        workspace.run("git", "init", "-q")
        workspace.alembic("upgrade", "head", env=env)
        workspace.alembic("revision", "--autogenerate", "-m", "Add tickets", env=env)
        workspace.alembic("upgrade", "head", env=env)
        database.execute("INSERT INTO conversations (id, revision) VALUES ('c', '1')")
        database.execute(
            "INSERT INTO tickets (id, conversation_id, title)"
            f" SELECT gen_random_uuid(), 'c', 'ticket ' || n FROM generate_series(1, {ROWS}) AS n"
        )
        deployment.deploy("release-0", "title")

    def release_1() -> None:
        """Release 1 has just migrated. It serves beside release 0; a rollback would start; release 0 ends."""
        deployment.deploy("release-1", "subject")
        deployment.both_serve()
        rolled_back = Code(deployment.folder / "release-0", deployment.python, None)
        code, printed = rolled_back.alembic(
            {**database.env, "MIGRATE_WHEN_AHEAD": "start"}, "upgrade", "head"
        )
        assert code == 0, printed
        assert "ahead of this older image by 2 revision(s)" in printed
        assert database.rows("SELECT count(*) FROM tickets WHERE title IS DISTINCT FROM subject") == [(0,)]
        deployment.stop("release-0")

    def release_2() -> None:
        """Release 2 has just migrated, while release 1 served. In one release with release 1 it would be too early."""
        early = workspace.run("python", "-m", "chassis", "lint", "--base", "HEAD~1", check=False)
        assert early.code == 1, early.output
        found = re.findall(r"^\S+-\w+?_(\w+)\.py:\d+: ([\w-]+): (.*?):", early.output, re.MULTILINE)
        assert found == [("contract_title", "column-still-read", "The last release reads `tickets.title`")]
        deployment.deploy("release-2", "subject")
        deployment.both_serve()
        deployment.stop("release-1")
        deployment.stop("release-2")

    prepare = {
        "The check before it runs": release_0,
        "Release 2: contract": release_1,
        "Two roles": release_2,
    }
    printed = run_blocks(blocks_of(workspace), workspace.path, env, prepare)

    for release, report in deployment.reports.items():
        assert report["failures"] == [], f"{release}: {report['failures'][:3]}"
        assert report["write"] > 20, report
        assert report["read"] > 20, report
        assert report["longest"] < 6, report
    assert set(deployment.reports) == {"release-0", "release-1", "release-2"}
    assert database.rows("SELECT count(*) >= 20000, count(subject) = count(*) FROM tickets") == [(True, True)]
    for section in ("The check before it runs", "Release 1: expand", "Release 2: contract"):
        assert "ok  upgrade head --sql" in printed[section]

    reached = catalogue(database)
    workspace.alembic("downgrade", "-3", env=env)
    assert database.rows("SELECT count(*) >= 20000, count(title) = count(*) FROM tickets") == [(True, True)]
    workspace.alembic("upgrade", "head", env=env)
    assert catalogue(database) == reached

    workspace.run("ruff", "check", "db")
    workspace.run("ruff", "format", "--check", "db")
    workspace.run("mypy", "--package", "db.tables")

    # The measure itself: what the guide advises against does fail requests.
    deployment.serve("release-2", "subject")
    database.execute("ALTER TABLE tickets RENAME COLUMN subject TO topic")
    deployment.both_serve(0.5)
    deployment.stop("release-2")
    assert "UndefinedColumn" in deployment.reports["release-2"]["failures"][0]


@pytest.mark.full
def test_the_index_of_the_guide(installed: Workspace, code: Code, database: Database) -> None:
    (block,) = [
        block for block in blocks_of(installed) if "autocommit_block" in block.text and block.path is None
    ]
    text = block.text.replace("tickets", "conversations")
    code.add("index", "pass")
    file = next((code.path / "db/migrations/versions").glob("*-index.py"))
    file.write_text(file.read_text().partition("def upgrade")[0] + text)
    before = catalogue(database)
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_conversations_created_at'::regclass"
    assert database.rows(valid) == [(True,)]
    assert code.alembic(database.env, "downgrade", "base")[0] == 0
    database.execute("DROP TABLE alembic_version")
    assert catalogue(database) == before


class Roles:
    """The guide's two roles, under names of this test's own, and what is done as each."""

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self.database = database
        self.number = next(NUMBERS)
        self.blocks = [self._own(block.text) for block in blocks_of(workspace) if block.language == "sql"]
        self.create, self.hand_over, self.protect = self.blocks

    def name(self, role: str) -> str:
        return f"{role}_{os.getpid()}_{self.number}"

    def _own(self, text: str) -> str:
        text = text.replace('"agent_api"', f'"{self.database.name}"')
        return re.sub(r"\b(migrator|app|agent)\b(?=[ ;])", lambda found: self.name(found[1]), text)

    @property
    def app(self) -> dict[str, str]:
        return {**self.database.env, "DB_USER": self.name("app"), "DB_PASS": "change-me-too"}

    @property
    def migrator(self) -> dict[str, str]:
        """The service's settings, with migrations as the other role."""
        return {**self.app, "MIGRATE_DB_USER": self.name("migrator"), "MIGRATE_DB_PASS": "change-me"}

    def connect(self, role: str, password: str) -> psycopg.Connection:
        server = self.database.server
        return psycopg.connect(
            host=server.host,
            port=server.port,
            user=self.name(role),
            password=password,
            dbname=self.database.name,
            autocommit=True,
        )


@pytest.fixture
def roles(installed: Workspace, database: Database) -> Roles:
    return Roles(installed, database)


def check_roles(roles: Roles, code: Code) -> None:
    """Migrate on as the migrator, and see what the app's role may do."""
    code.add(
        "later",
        'op.execute("CREATE SCHEMA later")\n'
        "op.execute(\"CREATE TYPE mood AS ENUM ('good', 'bad')\")\n"
        'op.execute("CREATE TABLE later (id serial PRIMARY KEY, mood mood NOT NULL)")\n'
        'op.execute("CREATE TABLE later.more (id bigint GENERATED ALWAYS AS IDENTITY, mood mood)")\n'
        'op.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$")',
        'op.execute("DROP SCHEMA later CASCADE; DROP FUNCTION one(); DROP TABLE later; DROP TYPE mood")',
    )
    exit_code, printed = code.alembic(roles.app, "upgrade", "head")
    assert exit_code == 255
    assert "The role may not do that." in printed
    assert "MIGRATE_DB_USER" in printed
    assert "Traceback" not in printed

    exit_code, printed = code.alembic(roles.migrator, "upgrade", "head")
    assert exit_code == 0, printed
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'later')"
    assert roles.database.rows(owners) == [(roles.name("migrator"),)]

    with roles.connect("migrator", "change-me") as migrator:
        migrator.execute(roles.protect)
    with roles.connect("app", "change-me-too") as app:
        assert app.execute("SELECT version_num FROM alembic_version").fetchall() == [("later",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("UPDATE alembic_version SET version_num = 'elsewhere'")
        for schema, table in app.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname IN ('public', 'later') AND tablename <> 'alembic_version'"
        ).fetchall():
            name = sql.Identifier(schema, table)
            app.execute(sql.SQL("SELECT * FROM {}").format(name))
            app.execute(sql.SQL("DELETE FROM {} WHERE false").format(name))
            for forbidden in (
                "DROP TABLE {}",
                "ALTER TABLE {} ADD COLUMN x int",
                "TRUNCATE {}",
                "CREATE INDEX ON {} (id)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    app.execute(sql.SQL(forbidden).format(name))
        for table in ("later", "later.more"):
            app.execute(f"INSERT INTO {table} (mood) VALUES ('good')")
            app.execute(f"UPDATE {table} SET mood = 'bad'")
            assert app.execute(f"SELECT mood, one() FROM {table}").fetchall() == [("bad", 1)]
            app.execute(f"DELETE FROM {table}")
        app.execute("INSERT INTO conversations (id, revision) VALUES ('1', '1')")
        run_id = app.execute(
            "INSERT INTO runs (id, conversation_id, agent_id, model)"
            " VALUES (gen_random_uuid(), '1', 'a', 'm') RETURNING status"
        ).fetchone()
        assert run_id == ("running",)
        app.execute("DELETE FROM conversations")
        for forbidden in (
            "CREATE TABLE mine (id int)",
            "CREATE TABLE later.mine (id int)",
            "CREATE SCHEMA mine",
            "CREATE TYPE mine AS ENUM ('a')",
            "ALTER TYPE mood ADD VALUE 'x'",
            f"SET ROLE {roles.name('migrator')}",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(forbidden)

    exit_code, printed = code.alembic(roles.migrator, "downgrade", "base")
    assert exit_code == 0, printed


@pytest.mark.full
def test_two_roles_made_by_a_superuser(roles: Roles, code: Code) -> None:
    roles.database.execute(roles.create)
    assert code.alembic(roles.migrator, "upgrade", "head")[0] == 0
    check_roles(roles, code)


@pytest.mark.full
def test_two_roles_made_as_on_a_managed_server(roles: Roles, code: Code, debian: Server) -> None:
    """The administrator there is no superuser: it may create roles, and owns the database."""
    admin, name = roles.name("admin"), roles.database.name
    debian.execute(f"CREATE ROLE {admin} LOGIN CREATEROLE CREATEDB PASSWORD 'admin'")
    debian.execute(f"ALTER DATABASE {name} OWNER TO {admin}")
    with roles.connect("admin", "admin") as connection:
        connection.execute(roles.create)
    check_roles(roles, code)


@pytest.mark.full
def test_two_roles_for_tables_that_are_there(roles: Roles, code: Code, debian: Server) -> None:
    agent = roles.name("agent")
    debian.execute(f"CREATE ROLE {agent} LOGIN PASSWORD 'agent'")
    debian.execute(f"ALTER DATABASE {roles.database.name} OWNER TO {agent}")
    env = {**roles.database.env, "DB_USER": agent, "DB_PASS": "agent"}
    assert code.alembic(env, "upgrade", "head")[0] == 0
    roles.database.execute(roles.create)
    roles.database.execute(roles.hand_over)
    check_roles(roles, code)


OPTIONS = """
import dataclasses, json
from chassis.migrations.options import Options
print(json.dumps({field.name: str(field.default) for field in dataclasses.fields(Options)}))
"""


def test_the_settings_of_the_guide(installed: Workspace) -> None:
    told = [[cell.strip("`") for cell in row] for row in rows_of(installed.read(GUIDE), "Settings")]
    known = json.loads(installed.run("python", "-c", OPTIONS).output)
    assert {row[1]: row[2] for row in told} == known
    assert all(row[0] == f"MIGRATE_{row[1].upper()}" and row[3] for row in told)


def test_variables_of_the_guide_exist(installed: Workspace) -> None:
    sources = "\n".join(
        installed.read(path.relative_to(installed.path).as_posix())
        for path in installed.files()
        if path.suffix in (".py", ".sh")
    )
    guide = installed.read(GUIDE)
    named = set(re.findall(r"`((?:DB|MIGRATE)_[A-Z_]*[A-Z])", guide))
    named |= set(re.findall(r"^([A-Z_]+)=", guide, re.MULTILINE))
    assert {"MIGRATE_DATABASE_URL", "MIGRATE_DB_HOST", "DB_SSLROOTCERT", "MIGRATE_DDL_RETRIES"} <= named
    options = {
        f"MIGRATE_{name.upper()}" for name in json.loads(installed.run("python", "-c", OPTIONS).output)
    }
    assert [
        name for name in named - options if f'"{name}"' not in sources and f"${{{name}" not in sources
    ] == []


def messages_in(source: str) -> Iterator[str]:
    """The texts of a module, with `…` where a value goes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%\w", "…", node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(map(str, parts))


def test_each_message_of_the_guide_exists(installed: Workspace) -> None:
    texts = [
        message
        for folder in ("chassis", "db")
        for path in (installed.path / folder).rglob("*.py")
        if "tests" not in path.parts
        for message in messages_in(path.read_text(encoding="utf-8"))
    ]
    told = [row[0].removeprefix("⚠ ").strip("`") for row in rows_of(installed.read(GUIDE), "When it stops")]
    assert len(told) > 15
    assert [message for message in told if not any(message in text for text in texts)] == []


def test_links_of_the_guide(installed: Workspace) -> None:
    assert list(broken_links(installed.path, [installed.path / GUIDE])) == []


def test_the_guide_is_read_in_a_few_minutes(installed: Workspace) -> None:
    """250 words of prose a minute, and code at a glance: 1,200 to 2,000 words make five to eight minutes."""
    prose = re.sub(r"^ *```.*?^ *```$", "", installed.read(GUIDE), flags=re.MULTILINE | re.DOTALL)
    without_tables = "\n".join(line for line in prose.splitlines() if not line.startswith("|"))
    assert 1200 <= len(without_tables.split()) <= 2000


@pytest.mark.full
def test_tls_as_a_managed_server_wants_it(code: Code) -> None:
    encrypted = (
        "import sqlalchemy\n"
        "from chassis.database.url import database_url, migration_url\n"
        "for url in (database_url(), migration_url()):\n"
        "    with sqlalchemy.create_engine(url).connect() as connection:\n"
        "        print(connection.scalar(sqlalchemy.text("
        "'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')))\n"
    )
    with (
        certificates("server", "other") as folder,
        debian_server(
            settings={**with_certificate(folder / "server.pem"), "listen_addresses": "127.0.0.1,127.0.0.2"}
        ) as server,
    ):
        env = {**server.new_database().env, "MIGRATE_CONNECT_TIMEOUT": "1", "DB_SSLMODE": "verify-full"}
        trusting = {**env, "DB_SSLROOTCERT": str(folder / "server.pem")}
        exit_code, printed = code.alembic(trusting, "upgrade", "head")
        assert exit_code == 0, printed
        both = run(code.python, "-c", encrypted, cwd=code.path, env=code.environment(trusting))
        assert both.output.split() == ["True", "True"]
        exit_code, printed = code.alembic(
            {**env, "DB_SSLROOTCERT": str(folder / "other.pem")}, "upgrade", "head"
        )
        assert exit_code == 255
        assert "The database's certificate isn't trusted: see DB_SSLROOTCERT." in printed
        exit_code, printed = code.alembic({**trusting, "DB_HOST": "127.0.0.2"}, "upgrade", "head")
        assert exit_code == 255
        assert "The database's certificate isn't made for this host name" in printed
