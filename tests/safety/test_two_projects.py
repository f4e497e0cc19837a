"""A database that another project migrates too: each has a version table of its own, and neither waits for the other."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.safety.test_roles import connect, make_roles, settings
from tests.support.code import Code
from tests.support.commands import ROOT
from tests.support.servers import Database, Server, server_programs, wait_until
from tests.support.workspaces import TEMPLATE_FOLDER

READY = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
from chassis.database.url import database_url
from chassis.health.readiness import Readiness
print(asyncio.run(Readiness(create_async_engine(database_url())).check()))
"""


def name_version_table(code: Code, name: str, schema: str = "") -> None:
    ini = code.path / "db/alembic.ini"
    text = ini.read_text(encoding="utf-8")
    for setting, value in (("version_table", name), ("version_table_schema", schema)):
        text, count = re.subn(rf"(?m)^{setting} =.*$", f"{setting} = {value}", text)
        assert count == 1
    ini.write_text(text, encoding="utf-8")


def ready(code: Code, database: Database) -> str:
    return code.run(database.env, "-c", READY)[1]


@pytest.fixture
def theirs(code: Code) -> Code:
    """Another project: one table, in Alembic's own version table."""
    other = code.newer(code.path.parent / "theirs")
    for file in (other.path / "db/migrations/versions").glob("*.py"):
        file.unlink()
    other.head = None
    other.add("their1", 'op.create_table("theirs", sa.Column("a", sa.Integer))', 'op.drop_table("theirs")')
    return other


def test_a_table_of_another_project_is_told(code: Code, theirs: Code, database: Database) -> None:
    """Both where the other project is one of this template, and where it is nobody that we know."""
    assert theirs.alembic(database.env, "upgrade", "head")[0] == 0
    for _ in range(2):
        exit_code, output = code.alembic(database.env, "upgrade", "head")
        assert exit_code == 255
        assert "alembic_version belongs to another project, which migrates this database too" in output
        assert "Traceback" not in output
        assert "belongs to another project" in ready(code, database)
        database.execute("COMMENT ON TABLE alembic_version IS NULL")
    name_version_table(code, "ours_version")
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 0, output
    assert ready(code, database).strip() == "('', '')"


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("ours_version", ""),
        pytest.param("alembic_version", "ours", marks=pytest.mark.full),
        pytest.param("v", "ours", marks=pytest.mark.full),
    ],
)
def test_two_projects_on_one_database(
    code: Code, theirs: Code, database: Database, name: str, schema: str
) -> None:
    name_version_table(code, name, schema)
    theirs.add("their2", 'op.execute("SELECT pg_sleep(60)")')
    long = theirs.start(database.env, "upgrade", "head")
    try:
        wait_until(lambda: database.running("pg_sleep"), 20)
        outcomes = code.replicas(database.env, 4, "upgrade", "head")
        assert [code for code, _ in outcomes] == [0] * 4, outcomes
        assert long.poll() is None
    finally:
        long.terminate()
        long.communicate(timeout=30)
    table = f"{schema}.{name}" if schema else name
    assert database.rows(f"SELECT version_num FROM {table}") == [(code.head,)]
    assert database.rows("SELECT version_num FROM alembic_version") == [("their1",)]
    assert ready(code, database).strip() == "('', '')"
    # Each sees its own, and leaves the other's alone; also on the way back, and ahead of an older image.
    assert "No new upgrade operations detected." in code.alembic(database.env, "check")[1]
    newer = code.newer(code.path.parent / "newer")
    newer.add("new1", 'op.create_table("later", sa.Column("a", sa.Integer))', 'op.drop_table("later")')
    assert newer.alembic(database.env, "upgrade", "head")[0] == 0
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert (exit_code, "ahead of this older image by 1 revision(s), new1" in output) == (255, True)
    assert newer.alembic(database.env, "downgrade", "base")[0] == 0
    assert database.rows("SELECT to_regclass('theirs')::text") == [("theirs",)]
    began = time.monotonic()
    assert newer.alembic(database.env, "upgrade", "head", "--sql")[0] == 0
    assert time.monotonic() - began < 60


@pytest.mark.full
def test_a_throw_away_database_has_it_too(code: Code) -> None:
    """`verify` and `lint` count neither the table nor its schema as left behind."""
    name_version_table(code, "versions", "ours")
    for command in ("verify", "lint"):
        exit_code, output = code.run({}, "-m", "chassis", command)
        assert exit_code == 0, output


@pytest.mark.full
def test_roles_and_backup_know_it(code: Code, debian: Server, tmp_path: Path) -> None:
    """The service reads it and can't write it; a backup is named by what it says."""
    name_version_table(code, "versions", "ours")
    database = debian.new_database()
    env = settings(database)
    assert make_roles(code, env).returncode == 0
    migrating = {**env, "DB_USER": env["MIGRATE_DB_USER"], "DB_PASS": env["MIGRATE_DB_PASS"]}
    exit_code, output = code.alembic(migrating, "upgrade", "head")
    assert exit_code == 0, output
    done = make_roles(code, env)
    assert done.returncode == 0, done.stderr
    rights = "SELECT has_table_privilege('ours.versions', what) FROM unnest(ARRAY['SELECT', 'UPDATE', 'INSERT']) what"
    with connect(env) as app:
        assert [can for (can,) in app.execute(rights)] == [True, False, False]
    shutil.copytree(ROOT / TEMPLATE_FOLDER / "deploy/compose", code.path / "deploy/compose")
    libpq = {"PGHOST": debian.host, "PGPORT": str(debian.port), "PGDATABASE": database.name}
    libpq |= {
        "PGUSER": debian.user,
        "PGPASSWORD": debian.password or "",
        "PATH": f"{server_programs()}:/usr/bin:/bin",
    }
    kept = subprocess.run(
        [code.path / "deploy/compose/backup.sh", tmp_path / "kept"],
        env=libpq,
        capture_output=True,
        text=True,
        check=False,
    )
    assert kept.returncode == 0, kept.stderr
    file = kept.stdout.strip()
    assert file.endswith(f"-{code.head}.dump")
    debian.execute(f"DROP DATABASE {database.name}")
    debian.execute(f"CREATE DATABASE {database.name}")
    restored = subprocess.run(
        [code.path / "deploy/compose/restore.sh", file],
        env=libpq,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"Restored, at revision {code.head}." in restored.stdout, restored.stderr


@pytest.mark.full
def test_a_name_that_needs_quoting_is_refused(code: Code, database: Database) -> None:
    for name in ("Versions", "a-b", "a b", "a.b", '"a"', "x" * 64, "ä"):
        name_version_table(code, name)
        exit_code, output = code.alembic(database.env, "upgrade", "head")
        assert exit_code == 255
        assert "version_table in db/alembic.ini is" in output
        assert "Traceback" not in output


@pytest.mark.full
def test_several_heads_are_told_when_asked_whether_it_is_ready(code: Code, database: Database) -> None:
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    first = code.head
    code.add("left", "pass")
    code.add("right", "pass", down=first)
    told = ready(code, database)
    assert "several heads, left, right. Join them: alembic -c db/alembic.ini merge heads" in told
