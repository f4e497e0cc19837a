"""Autogenerate in a baked workspace, on its embedded PostgreSQL: right the first time and the second.

All commands are the ones the guide tells people to type, run in the workspace's own environment.
"""

import ast
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.support.commands import Outcome, run
from tests.support.marks import quick_are
from tests.support.servers import debian_server
from tests.support.workspaces import Workspace

# Random edits and histories on Debian's server; more of them each week. Read here, as the tests know nothing of the machine.
EXAMPLES = os.environ.get("AUTOGENERATE_EXAMPLES", "60")

NOTHING_TO_DO = "there is nothing to write a revision for"

# What of the catalogue is compared: every table, column, enum type and schema that isn't PostgreSQL's.
TABLES = """
    SELECT table_schema || '.' || table_name FROM information_schema.tables
     WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
COLUMNS = """
    SELECT table_schema, table_name, column_name, data_type, udt_name, is_nullable, column_default
      FROM information_schema.columns
     WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3
"""
ENUMS = """
    SELECT n.nspname || '.' || t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_enum e ON e.enumtypid = t.oid
     GROUP BY 1 ORDER BY 1
"""
INDEXES = """
    SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes
     WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3
"""
SCHEMAS = (
    "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"
)
OUR_TABLES = {
    f"public.{name}"
    for name in (
        "api_files api_key_usage api_keys api_users background_calls background_runs conversation_entries conversations"
        " documents incidents owned_passages passages procrastinate_events procrastinate_jobs procrastinate_periodic_defers"
        " procrastinate_workers run_events run_feedback runs".split()
    )
}


@dataclass(frozen=True)
class Migrations:
    """The migrations of a workspace, and a look at the database they work on."""

    workspace: Workspace
    connection: psycopg.Connection[Any]

    @property
    def versions(self) -> Path:
        return self.workspace.path / "db/migrations/versions"

    def declare(self, source: str, module: str = "extras") -> None:
        """Write a module of table classes, which db/tables/__init__.py finds, as the guide says."""
        tables = self.workspace.path / "db/tables"
        header = """
            import enum
            import uuid
            from datetime import datetime
            from decimal import Decimal
            from typing import Any

            import sqlalchemy as sa
            from sqlalchemy import ForeignKey, func, text
            from sqlalchemy.dialects.postgresql import ARRAY, JSONB
            from sqlalchemy.orm import Mapped, mapped_column

            from db.tables.base import Base
        """
        (tables / f"{module}.py").write_text(
            textwrap.dedent(header) + "\n\n" + textwrap.dedent(source), encoding="utf-8"
        )

    def alembic(self, *arguments: str, **options: Any) -> Outcome:
        return self.workspace.alembic(*arguments, **options)

    def revisions(self) -> set[Path]:
        return set(self.versions.glob("*.py"))

    def autogenerate(self, message: str = "A change") -> str:
        """Autogenerate a revision, check how it is written, and return its text, "" where there is none."""
        before = self.revisions()
        outcome = self.alembic("revision", "--autogenerate", "-m", message)
        new = self.revisions() - before
        if not new:
            assert NOTHING_TO_DO in outcome.output
            return ""
        (path,) = new
        assert NOTHING_TO_DO not in outcome.output
        assert re.fullmatch(r"\d{4}_\d\d_\d\d_\d{4}-[0-9a-f]{12}_\w+\.py", path.name)
        for check in (["check"], ["format", "--check"]):
            self.workspace.run("ruff", *check, "--no-cache", path)
        text = path.read_text(encoding="utf-8")
        ast.parse(text)
        return text

    def assert_settled(self) -> None:
        """Tables and database agree: `check` says so, and autogenerate has nothing to write."""
        outcome = self.alembic("check", check=False)
        assert outcome.code == 0, outcome.output
        assert self.autogenerate("Nothing") == ""

    def rows(self, query: str) -> list[Any]:
        return [row[0] if len(row) == 1 else row for row in self.connection.execute(query).fetchall()]

    def state(self) -> dict[str, list[Any]]:
        """All that can be seen of the database's form, Alembic's own table aside."""
        queries = {"columns": COLUMNS, "enums": ENUMS, "indexes": INDEXES, "schemas": SCHEMAS}
        return {
            name: [row for row in self.rows(query) if "alembic_version" not in str(row)]
            for name, query in queries.items()
        }

    def round_trip(self) -> None:
        """Upgrade, find nothing more to do, take the newest revision back and apply it again."""
        before = self.state()
        self.alembic("upgrade", "head")
        after = self.state()
        self.assert_settled()
        self.alembic("downgrade", "-1")
        assert self.state() == before
        self.alembic("upgrade", "head")
        assert self.state() == after
        self.assert_settled()

    def assert_nothing_left_at_base(self) -> None:
        """The downgrade to base leaves nothing of ours."""
        self.alembic("downgrade", "base")
        assert self.rows(TABLES) == ["public.alembic_version"]
        assert self.rows(ENUMS) == []
        assert self.rows(SCHEMAS) == ["public"]


@pytest.fixture
def empty(workspace: Workspace) -> Iterator[Migrations]:
    """A workspace whose embedded database is running and empty."""
    code = (
        "import sys; from chassis.database import embedded; "
        "print(embedded.start().query['host'], flush=True); sys.stdin.read()"
    )
    # While one process holds the server, the commands join it instead of starting their own.
    holder = subprocess.Popen(
        [workspace.path / ".venv/bin/python", "-c", code],
        cwd=workspace.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(workspace.path)},
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    host = holder.stdout.readline().strip()
    try:
        with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
            yield Migrations(workspace, connection)
    finally:
        holder.stdin.close()
        holder.wait(30)


@pytest.fixture
def migrations(empty: Migrations) -> Migrations:
    """A workspace whose embedded database is at head."""
    empty.alembic("upgrade", "head")
    return empty


TICKETS = """
    class Priority(enum.StrEnum):
        LOW = "low"
        HIGH = "high"


    def priority_type() -> sa.Enum:
        return sa.Enum(Priority, name="priority", values_callable=lambda members: [m.value for m in members])


    class Ticket(Base):
        __tablename__ = "tickets"
        __table_args__ = (
            sa.UniqueConstraint("tenant", "reference"),
            sa.CheckConstraint("amount >= 0", name="amount_not_negative"),
            sa.Index("ix_tickets_open", "priority", postgresql_where=text("closed_at IS NULL")),
            {"comment": "what people ask for: 'quoted', \\"twice\\", 100%"},
        )

        number: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True, start=1000), primary_key=True)
        key: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
        tenant: Mapped[str] = mapped_column(index=True)
        reference: Mapped[str] = mapped_column(sa.String(50), comment="the customer's own number, it's theirs")
        priority: Mapped[Priority] = mapped_column(priority_type(), server_default="low")
        seen_as: Mapped[list[Priority]] = mapped_column(ARRAY(priority_type()), server_default=text("'{}'::priority[]"))
        tags: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), server_default=text("'{}'::text[]"))
        payload: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
        amount: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), server_default=text("0"))
        attempts: Mapped[int] = mapped_column(server_default=text("0"))
        active: Mapped[bool] = mapped_column(server_default=sa.true())
        opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
        closed_at: Mapped[datetime | None]
        run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"), index=True)
        parent: Mapped[int | None] = mapped_column(ForeignKey("tickets.number"))
"""


def test_fresh_workspace_has_nothing_to_autogenerate(migrations: Migrations) -> None:
    assert set(migrations.rows(TABLES)) == OUR_TABLES | {"public.alembic_version"}
    migrations.assert_settled()
    migrations.assert_nothing_left_at_base()


def test_new_table_with_every_kind_of_column(migrations: Migrations) -> None:
    migrations.declare(TICKETS)
    check = migrations.alembic("check", check=False)
    assert check.code != 0
    assert "Traceback" not in check.output

    text = migrations.autogenerate("Add tickets")
    assert text.count("op.create_table(") == 1
    assert "op.drop" not in text.partition("def downgrade")[0]
    migrations.workspace.run("mypy")
    migrations.round_trip()

    assert migrations.rows("SELECT obj_description('tickets'::regclass)") == [
        "what people ask for: 'quoted', \"twice\", 100%"
    ]
    migrations.connection.execute("INSERT INTO tickets (tenant, reference) VALUES ('a', '1')")
    assert migrations.rows(
        "SELECT number, priority, seen_as, tags, payload, attempts, active FROM tickets"
    ) == [(1000, "low", "{}", [], {}, 0, True)]
    offline = migrations.alembic("upgrade", "head", "--sql").output
    assert "CREATE TYPE priority AS ENUM ('low', 'high')" in offline
    migrations.assert_nothing_left_at_base()


@pytest.mark.full
def test_changes_of_a_table_are_found(migrations: Migrations) -> None:
    """Type, length, default, nullability, comment, index, unique constraint, column and enum value."""
    migrations.declare(TICKETS)
    migrations.autogenerate("Add tickets")
    migrations.alembic("upgrade", "head")
    migrations.connection.execute(
        "INSERT INTO tickets (tenant, reference, priority, seen_as) VALUES ('a', '1', 'high', '{low,high}')"
    )
    changed = TICKETS
    for before, after in (
        ('HIGH = "high"', 'MIDDLE = "middle"\n        HIGH = "high"\n        URGENT = "it\'s: urgent"'),
        ("sa.String(50)", "sa.String(80)"),
        ("attempts: Mapped[int] = mapped_column(", "attempts: Mapped[int] = mapped_column(sa.BigInteger, "),
        ("sa.Numeric(12, 2)", "sa.Numeric(14, 4)"),
        ('server_default="low"', 'server_default="middle"'),
        ("server_default=sa.true()", "server_default=sa.false()"),
        ("tenant: Mapped[str] = mapped_column(index=True)", "tenant: Mapped[str | None] = mapped_column()"),
        ("it's theirs", "it's still theirs"),
        ("unique=True, ", ""),
        (
            "closed_at: Mapped[datetime | None]",
            "closed_at: Mapped[datetime | None] = mapped_column(index=True)",
        ),
        ("tags: Mapped[list[str]]", "labels: Mapped[list[str]]"),
        ('"tenant", "reference"', '"tenant", "reference", "amount"'),
        ("100%", "99%"),
    ):
        assert before in changed, before
        changed = changed.replace(before, after, 1)
    migrations.declare(changed)
    text = migrations.autogenerate("Change tickets")
    assert "op.create_table(" not in text
    assert "op.drop_table(" not in text
    migrations.round_trip()

    columns = {row[2]: row[3:] for row in migrations.rows(COLUMNS) if row[1] == "tickets"}
    assert columns["attempts"] == ("bigint", "int8", "NO", "0")
    assert columns["priority"] == ("USER-DEFINED", "priority", "NO", "'middle'::priority")
    assert columns["active"] == ("boolean", "bool", "NO", "false")
    assert columns["tenant"][2] == "YES"
    assert "tags" not in columns
    assert "labels" in columns
    assert migrations.rows(
        "SELECT character_maximum_length FROM information_schema.columns WHERE column_name = 'reference'"
    ) == [80]
    assert dict(migrations.rows(ENUMS))["public.priority"] == ["low", "middle", "high", "it's: urgent"]
    indexes = {row[2] for row in migrations.rows(INDEXES) if row[1] == "tickets"}
    assert "ix_tickets_closed_at" in indexes
    assert indexes.isdisjoint({"ix_tickets_tenant", "uq_tickets_key", "uq_tickets_tenant_reference"})
    assert migrations.rows("SELECT priority, seen_as FROM tickets") == [("high", "{low,high}")], "data lost"
    migrations.assert_nothing_left_at_base()


@pytest.mark.full
def test_removed_table_is_dropped_and_the_others_stay(migrations: Migrations) -> None:
    shared = """
        class Label(Base):
            __tablename__ = "labels"
            id: Mapped[int] = mapped_column(primary_key=True)
            priority: Mapped[str] = mapped_column(sa.Enum("low", "high", name="priority"))
    """
    migrations.declare(TICKETS)
    migrations.autogenerate("Add tickets")
    migrations.alembic("upgrade", "head")
    migrations.declare("")
    migrations.declare(shared, "labels")
    text = migrations.autogenerate("Drop tickets, add labels")
    upgrade, _, downgrade = text.partition("def downgrade")
    assert re.findall(r"op\.drop_table\(\s*\"(\w+)\"", upgrade) == ["tickets"]
    assert re.findall(r"op\.create_table\(\s*\"(\w+)\"", downgrade) == ["tickets"]
    migrations.round_trip()
    assert set(migrations.rows(TABLES)) == OUR_TABLES | {"public.alembic_version", "public.labels"}
    assert "public.priority" in dict(migrations.rows(ENUMS)), "the enum type is still used"

    migrations.declare("", "labels")
    migrations.autogenerate("Drop labels")
    migrations.round_trip()
    assert "public.priority" not in dict(migrations.rows(ENUMS))
    migrations.assert_nothing_left_at_base()


BILLING = """
    class Plan(Base):
        __tablename__ = "plans"
        __table_args__ = {"schema": "billing"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.Enum("free", "paid", name="plan_kind", schema="billing"))


    class Invoice(Base):
        __tablename__ = "invoices"
        __table_args__ = {"schema": "Odd Schema"}
        id: Mapped[int] = mapped_column(primary_key=True)
        plan_id: Mapped[int] = mapped_column(ForeignKey("billing.plans.id"), index=True)
        run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))


    class Runs(Base):
        __tablename__ = "runs"
        __table_args__ = {"schema": "billing"}
        id: Mapped[int] = mapped_column(primary_key=True)
"""


@pytest.mark.full
def test_several_schemas_new_ones_included(migrations: Migrations) -> None:
    migrations.declare(BILLING)
    text = migrations.autogenerate("Add billing")
    assert text.count("op.create_table(") == 3
    migrations.round_trip()
    assert set(migrations.rows(SCHEMAS)) == {"public", "billing", "Odd Schema"}

    migrations.declare(
        BILLING.replace('"free", "paid"', '"free", "paid", "gift"').replace(", index=True", "")
    )
    migrations.autogenerate("Change billing")
    migrations.round_trip()
    assert dict(migrations.rows(ENUMS))["billing.plan_kind"] == ["free", "paid", "gift"]

    migrations.declare("")
    text = migrations.autogenerate("Drop billing")
    assert text.partition("def downgrade")[0].count("op.drop_table(") == 3
    migrations.round_trip()
    migrations.assert_nothing_left_at_base()


# As the libraries make them: agno's sessions in both of its places, PostGIS, APScheduler, and a
# library with an enum type of its own.
FOREIGN = """
    CREATE TABLE agno_sessions (session_id text PRIMARY KEY, data jsonb, created_at bigint);
    CREATE INDEX ix_agno_sessions_created_at ON agno_sessions (created_at);
    CREATE SCHEMA ai;
    CREATE TABLE ai.agno_sessions (session_id text PRIMARY KEY, data jsonb);
    CREATE TABLE spatial_ref_sys (srid integer PRIMARY KEY, srtext varchar(2048));
    CREATE TABLE apscheduler_jobs (id varchar(191) PRIMARY KEY, job_state bytea NOT NULL);
    CREATE SCHEMA jobs;
    CREATE TABLE jobs.apscheduler_jobs (id varchar(191) PRIMARY KEY, next_run_time double precision);
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE jobs.mood AS ENUM ('grim');
    CREATE TABLE jobs.people (id integer PRIMARY KEY, mood mood DEFAULT 'ok', other jobs.mood);
    CREATE TABLE ai.runs (id integer PRIMARY KEY);
    CREATE VIEW jobs.happy AS SELECT id FROM jobs.people;
    CREATE SEQUENCE foreign_numbers;
    INSERT INTO agno_sessions VALUES ('s', '{}', 1);
    INSERT INTO jobs.people VALUES (1, 'sad', 'grim');
"""


@pytest.mark.full
def test_tables_of_other_owners_are_left_alone(empty: Migrations) -> None:
    migrations = empty
    migrations.connection.execute(FOREIGN)
    theirs = migrations.state()

    def assert_theirs_is_untouched() -> None:
        now = migrations.state()
        for kind, rows in theirs.items():
            assert [row for row in rows if row not in now[kind]] == []
        assert migrations.rows("SELECT session_id FROM agno_sessions") == ["s"]
        assert migrations.rows("SELECT mood::text, other::text FROM jobs.people") == [("sad", "grim")]

    migrations.alembic("upgrade", "head")
    migrations.assert_settled()
    assert_theirs_is_untouched()

    # Tables of ours beside theirs: in their schema, with the same name in another schema, and an
    # enum type whose name is theirs in another schema.
    migrations.declare("""
        class Job(Base):
            __tablename__ = "job_notes"
            __table_args__ = {"schema": "jobs"}
            id: Mapped[int] = mapped_column(primary_key=True)
            tone: Mapped[str] = mapped_column(sa.Enum("calm", "loud", name="tone"))


        class People(Base):
            __tablename__ = "people"
            id: Mapped[int] = mapped_column(primary_key=True)
    """)
    text = migrations.autogenerate("Add notes")
    for name in ("agno", "spatial", "apscheduler", "mood", "drop_table", "happy"):
        assert name not in text.partition("def downgrade")[0]
    assert "SCHEMA" not in text, "the schema was there before, and isn't ours to drop"
    migrations.round_trip()
    assert_theirs_is_untouched()

    migrations.declare("")
    text = migrations.autogenerate("Drop notes")
    assert set(re.findall(r"op\.drop_table\(\s*\"(\w+)\"", text.partition("def downgrade")[0])) == {
        "job_notes",
        "people",
    }
    migrations.round_trip()
    assert_theirs_is_untouched()

    migrations.alembic("downgrade", "base")
    assert migrations.state() == theirs


@pytest.mark.full
def test_team_names_what_else_is_foreign_in_one_place(migrations: Migrations) -> None:
    """A table that is declared for queries only, and created by its library."""
    ini = migrations.workspace.path / "db/alembic.ini"
    text = ini.read_text(encoding="utf-8")
    assert "public.spatial_ref_sys\n" in text
    ini.write_text(
        text.replace("public.spatial_ref_sys\n", "public.spatial_ref_sys\n    public.jobs_*\n"),
        encoding="utf-8",
    )
    migrations.declare("""
        class JobState(Base):
            __tablename__ = "jobs_state"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(sa.Enum("on", "off", name="job_state"))
    """)
    migrations.assert_settled()
    migrations.connection.execute("CREATE TABLE jobs_state (id bigint PRIMARY KEY, other text)")
    migrations.assert_settled()


@pytest.mark.full
def test_from_another_working_directory(migrations: Migrations, tmp_path: Path) -> None:
    ini = str(migrations.workspace.path / "db/alembic.ini")
    alembic = migrations.workspace.path / ".venv/bin/alembic"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    migrations.declare(TICKETS)
    before = migrations.revisions()
    for cwd, config in ((elsewhere, ini), (migrations.workspace.path / "db", "alembic.ini")):
        assert "(head)" in run(alembic, "-c", config, "current", cwd=cwd).output
        assert "Tables of the chassis" in run(alembic, "-c", config, "history", cwd=cwd).output
    run(alembic, "-c", ini, "revision", "--autogenerate", "-m", "From elsewhere", cwd=elsewhere)
    (new,) = migrations.revisions() - before
    migrations.workspace.run("ruff", "format", "--check", "--no-cache", new)
    run(alembic, "-c", "alembic.ini", "upgrade", "head", cwd=migrations.workspace.path / "db")
    assert "public.tickets" in migrations.rows(TABLES)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "message",
    quick_are(
        ["odd"],
        {
            "plain": "Add tickets",
            "odd": "Straße: \"quoted\" 'twice' {x} 100% \\n \\",
            "quotes": '"""',
            "long": "a" * 300,
            "templates": "#1: ${x} <% y %>",
            "path": "./../up",
        },
    ),
)
def test_any_message_gives_a_revision_that_loads(migrations: Migrations, message: str) -> None:
    """Without autogenerate too: a revision by hand, for data say, is written though nothing changed."""
    before = migrations.revisions()
    migrations.alembic("revision", "-m", message)
    (new,) = migrations.revisions() - before
    assert new.parent == migrations.versions
    title = (ast.get_docstring(ast.parse(new.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    assert title == message.replace('"""', "'''").rstrip(".") + "."
    migrations.workspace.run("ruff", "check", "--no-cache", new)
    migrations.workspace.run("ruff", "format", "--check", "--no-cache", new)
    migrations.alembic("upgrade", "head")
    assert "(head)" in migrations.alembic("current").output


@pytest.mark.full
def test_two_heads_are_merged(migrations: Migrations) -> None:
    base = migrations.alembic("heads").output.split()[0]
    for message in ("One", "Two"):
        migrations.alembic("revision", "-m", message, "--head", base, "--splice")
    refused = migrations.alembic("upgrade", "head", check=False)
    assert refused.code != 0
    assert "Multiple head revisions" in refused.output
    assert "Traceback" not in refused.output
    before = migrations.revisions()
    migrations.alembic("merge", "heads", "-m", "Join")
    (merge,) = migrations.revisions() - before
    migrations.workspace.run("ruff", "check", "--no-cache", merge)
    migrations.alembic("upgrade", "head")
    migrations.assert_settled()


@pytest.mark.parametrize(
    ("command", "declared", "says"),
    [
        (("revision", "--autogenerate", "-m", "x"), TICKETS, "not up to date"),
        (("upgrade", "nosuchrevision"), "", "nosuchrevision"),
        (
            ("check",),
            BILLING.replace("billing", "public").replace("Runs(", "More(").replace('"runs"', '"more"'),
            "public",
        ),
    ],
    ids=["behind", "unknown-revision", "schema-public"],
)
def test_a_mistake_gets_a_line_and_no_traceback(
    empty: Migrations, command: tuple[str, ...], declared: str, says: str
) -> None:
    if command[0] == "check":
        empty.alembic("upgrade", "head")
    empty.declare(declared)
    outcome = empty.alembic(*command, check=False)
    assert outcome.code != 0
    assert says in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("name", ["alembic", "pytest", "uvicorn"])
def test_commands_of_the_guide_are_in_the_workspaces_environment(installed: Workspace, name: str) -> None:
    assert shutil.which(name, path=str(installed.path / ".venv/bin"))


@pytest.mark.full
@pytest.mark.long
def test_debians_server_gives_the_same_verdicts(installed: Workspace) -> None:
    """The whole table of changes, many more random edits than usual, the models, and the lint, on PostgreSQL 15."""
    with debian_server() as server:
        url = f"postgresql+psycopg://admin:{quote(server.password or '', safe='')}@{server.host}:{server.port}/postgres"
        variables = {"TEST_DATABASE_URL": url, "AUTOGENERATE_EXAMPLES": EXAMPLES, "LINT_EXAMPLES": EXAMPLES}
        files = [f"chassis/tests/migrations/test_{name}.py" for name in ("changes", "generated", "models")]
        files.append("chassis/tests/lint")
        installed.run("pytest", "-q", "-p", "no:cacheprovider", *files, env=variables, timeout=2400)
