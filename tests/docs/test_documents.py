"""What the documentation of a workspace says is true: its commands run, its names and links exist."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_blocks import broken_links, check_names, read_blocks, run_blocks
from tests.support.commands import ROOT
from tests.support.documents import SECTIONS, blocks_of, database_running, markdown_files, rows_of
from tests.support.workspaces import Workspace

# The commands that people know by heart, to the letter, for the slug agent-api.
FIXED_COMMANDS = """
alembic -c db/alembic.ini revision --autogenerate -m "Your Revision Message"
alembic -c db/alembic.ini upgrade head
docker exec -it agent-api alembic -c db/alembic.ini revision --autogenerate -m "
docker exec -it agent-api alembic -c db/alembic.ini upgrade head
MIGRATE_DB=True
docker exec -it agent-api zsh
cd db
alembic init migrations
script_location = db/migrations
https://alembic.sqlalchemy.org/en/latest/autogenerate.html
""".strip().splitlines()
ECS_COMMANDS = """
ECS_CLUSTER=prd-agent-cluster
TASK_ARN=$(aws ecs list-tasks --cluster $ECS_CLUSTER --query "taskArns[0]" --output text)
CONTAINER_NAME=prd-agent-api
aws ecs execute-command --cluster $ECS_CLUSTER --task $TASK_ARN --container $CONTAINER_NAME --interactive --command "alembic -c db/alembic.ini upgrade head"
""".strip().splitlines()


def two_heads(workspace: Workspace) -> Callable[[], None]:
    """Write two revisions on top of the same one, as two people would."""

    def prepare() -> None:
        head = workspace.alembic("heads").output.split()[0]
        for message in ("Tickets of one", "Topics of another"):
            workspace.alembic("revision", "-m", message, "--splice", "--head", head)

    return prepare


def test_the_commands_of_the_guide(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    with database_running(workspace):
        printed = run_blocks(
            blocks_of(workspace, "db/README.md"),
            workspace.path,
            shell_environment,
            prepare={"Merging two heads": two_heads(workspace)},
        )
    assert "(head)" in printed["The idea"]
    example = printed["Write a revision and apply it"]
    assert "No new upgrade operations detected." in example
    assert "ok  upgrade head again" in example
    assert "ok  upgrade head again" in printed["Merging two heads"], (
        "the check finds fault with the guide's revisions"
    )
    assert "there is nothing to write a revision for" in printed["Development"]
    assert "CREATE TABLE tickets" in printed["Looking around"]
    revision = next((workspace.path / "db/migrations/versions").glob("*_your_revision_message.py"))
    assert revision.read_text(encoding="utf-8").count("op.create_table(") == 1
    written = ("db/tables", "db/migrations/versions")
    workspace.run("ruff", "check", *written)
    workspace.run("ruff", "format", "--check", *written)


@pytest.mark.full
def test_the_column_of_the_guide(workspace: Workspace) -> None:
    """The guide's new column that takes no NULL: autogenerate, the check and a table with rows take it."""
    (block,) = [block for block in blocks_of(workspace, "db/README.md") if block.text.startswith("topic: ")]
    classes = workspace.path / "chassis/conversations/tables.py"
    first = '    __tablename__ = "conversations"\n'
    text = classes.read_text(encoding="utf-8").replace(first, f"{first}    {block.text}")
    with database_running(workspace):
        workspace.alembic("upgrade", "head")
        add_row = (
            "# lint: allow irreversible -- what matters is the row\n"
            "    op.execute(\"INSERT INTO conversations (id, revision) VALUES ('1', '1')\")"
        )
        row = REVISION.format(down=workspace.alembic("heads").output.split()[0], body=add_row)
        file = workspace.path / "db/migrations/versions/2030_01_01_0000-aaaaaaaaaaaa_row.py"
        file.write_text(row, encoding="utf-8")
        workspace.alembic("upgrade", "head")
        classes.write_text(text, encoding="utf-8")
        workspace.alembic("revision", "--autogenerate", "-m", "topic")
        workspace.alembic("upgrade", "head")
        workspace.run("python", "-m", "chassis", "lint")


@pytest.mark.full
def test_the_commands_of_the_readme(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    # The workspace's own tests run in full elsewhere; here it is the command that counts.
    environment = {**shell_environment, "PYTEST_ADDOPTS": "-k revisions"}
    # tests/docs/test_walkthrough.py does what these sections say.
    blocks = [block for block in blocks_of(workspace, "README.md") if block.heading not in SECTIONS]
    printed = run_blocks(blocks, workspace.path, environment)
    first = printed["Five minutes"]
    assert '"id":"assistant"' in first
    assert '"conversation_id":"' in first
    assert "event: done" in first
    assert "Hello!" in first.partition("event: done")[2]
    assert "passed" in printed["Tests and checks"]


@pytest.mark.full
def test_the_commands_of_the_api(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    printed = run_blocks(
        blocks_of(workspace, "api/README.md"), workspace.path, shell_environment, keep_serving=True
    )
    runs = printed["Runs"]
    assert "id: 4\n" in runs, "the stream that is resumed goes on after the third event"
    assert "id: 3\n" not in runs.rpartition("id: 4\n")[0]
    first, second = re.findall(r'"run_id":"([^"]+)"', runs)[-2:]
    assert first == second, "the same idempotency key, the same run"
    assert '"next_cursor"' in printed["Conversations"]
    keys = printed["API keys"]
    assert re.search(r"ak_\w{12}_\w{64}", keys)
    assert "60 runs/min, 500000 tokens/day" in keys


@pytest.mark.full
def test_the_commands_without_uv(workspace: Workspace, tmp_path: Path) -> None:
    """The block for people without uv makes an environment in which the migrations run."""
    (workspace.path / ".venv").unlink()
    block = next(block for block in blocks_of(workspace, "README.md") if block.heading == "Without uv")
    python = workspace.path.parent / "python"
    python.mkdir()
    (python / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    commands = replace(block, reason=None, text=block.text + "alembic -c db/alembic.ini upgrade head\n")
    printed = run_blocks([commands], workspace.path, environment)
    assert "Running upgrade  -> " in printed["Without uv"]


@pytest.mark.full
@pytest.mark.parametrize("answers", [{}, {"project_slug": "support", "model_provider": "google"}])
def test_blocks_that_are_not_run_name_what_exists(
    answers: dict[str, Any], bake: Callable[..., Workspace], installed: Workspace
) -> None:
    workspace = bake(**answers)
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    marked = [
        block
        for path in markdown_files(workspace)
        for block in blocks_of(workspace, path.relative_to(workspace.path).as_posix())
        if block.is_commands and block.reason is not None
    ]
    assert {block.document for block in marked} >= {
        "README.md",
        "db/README.md",
        "infra/README.md",
        "OPERATIONS.md",
    }
    for block in marked:
        check_names(block, workspace.path)


def test_every_document_with_commands_is_run_or_marked(installed: Workspace) -> None:
    # The last by tests/safety/test_existing_databases.py.
    run_here = {
        "README.md",
        "api/README.md",
        "db/README.md",
        "db/SAFE_MIGRATIONS.md",
        "db/EXISTING_DATABASES.md",
    }
    for path in markdown_files(installed):
        document = path.relative_to(installed.path).as_posix()
        if document not in run_here:
            for block in blocks_of(installed, document):
                assert not block.is_commands or block.reason, f"{block.where} is neither run nor marked"


PLACES = {
    "use_ecs": "infra/README.md",
    "use_single_machine": "deploy/compose/README.md",
    "use_kubernetes": "deploy/kubernetes/README.md",
}


@pytest.mark.parametrize("chosen", [[], *([answer] for answer in PLACES), list(PLACES)])
def test_operations_page_leads_to_the_places(chosen: list[str], bake: Callable[..., Workspace]) -> None:
    workspace = bake(**{answer: answer in chosen for answer in PLACES})
    page = workspace.read("OPERATIONS.md")
    assert list(broken_links(workspace.path, [workspace.path / "OPERATIONS.md"])) == []
    rows = [
        line.strip("| ").split(" | ") for line in page.partition("\n## ")[0].splitlines() if line[:1] == "|"
    ]
    assert len(rows) == (12 if chosen else 0)
    for _, *cells in rows[2:]:
        assert len(cells) == len(chosen)
        for answer, cell in zip(chosen, cells, strict=True):
            without_link = {"what offers the database", "[metrics and traces](#see-it-from-outside)"}
            if answer == "use_single_machine":
                without_link |= {"[in the container](#migrate-by-hand)"}
            assert PLACES[answer] in cell or cell in without_link
    assert ("infra/deliver/roll.sh" in page) is ("use_ecs" in chosen)


def test_commands_known_by_heart(bake: Callable[..., Workspace]) -> None:
    guide = bake().read("db/README.md").splitlines()
    for command in FIXED_COMMANDS + ECS_COMMANDS:
        assert any(command in line for line in guide), command
    other = bake(project_slug="support").read("db/README.md")
    assert "docker exec -it support alembic -c db/alembic.ini upgrade head" in other
    assert "ECS_CLUSTER=prd-support-cluster\n" in other
    assert "CONTAINER_NAME=prd-support\n" in other
    assert "aws " not in bake(use_ecs=False).read("db/README.md")


@pytest.mark.full
def test_the_commands_of_the_template(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """The template's own documents: links, names, and the commands that nothing else runs."""
    documents = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")})
    assert list(broken_links(ROOT, documents)) == []
    run_by_a_fresh_clone = {"make new\n", "make test\n"}
    for document in documents:
        name = document.relative_to(ROOT).as_posix()
        if name == "docs/platform-teams.md":
            continue  # tests/docs/test_platform_teams.py runs all of it
        for block in read_blocks(document.read_text(encoding="utf-8"), name):
            if not block.is_commands:
                continue
            if block.reason or block.text in run_by_a_fresh_clone or name != "CONTRIBUTING.md":
                check_names(block, ROOT)
            else:
                here = replace(block, text=block.text.replace("/tmp/", f"{tmp_path}/"))
                run_blocks([here], ROOT, shell_environment)


# How many ways of migrating the guide adds for each.
WAYS = {"use_ecs": 2, "use_single_machine": 0, "use_kubernetes": 1}


@pytest.mark.parametrize(
    "chosen",
    [
        ["use_ecs", "use_github_actions"],
        ["use_ecs", "use_single_machine"],
        ["use_kubernetes", "use_github_actions"],
        list(PLACES),
        [],
    ],
    ids=" ".join,
)
def test_links_and_paths_exist(chosen: list[str], bake: Callable[..., Workspace]) -> None:
    workspace = bake(**{answer: answer in chosen for answer in [*PLACES, "use_github_actions"]})
    documents = markdown_files(workspace)
    assert list(broken_links(workspace.path, documents)) == []
    assert [path for document in documents for path in missing_paths(workspace.path, document)] == []
    # Where it is deployed, and how it is migrated there.
    for document, prefix in (("README.md", "]("), ("db/README.md", "](../")):
        production = workspace.read(document).partition("\n## Production\n")[2].partition("\n## ")[0]
        linked = {answer for answer, page in PLACES.items() if f"{prefix}{page}" in production}
        assert linked == PLACES.keys() & set(chosen)
    ways = re.findall(r"^### (\w+) way: ", production, re.MULTILINE)
    number = 1 + sum(WAYS[answer] for answer in linked)
    assert ways == ["First", "Second", "Third", "Fourth"][:number]


def missing_paths(root: Path, document: Path) -> Iterator[str]:
    """Yield the paths in backticks, such as `db/tables`, that don't exist. The guide's examples may."""
    folders = "agents|api|db|deploy|scripts|tests|infra|\\.github"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", document.read_text(encoding="utf-8")):
        if not (root / path).exists() and "2026_11_24_0931" not in path and path != "db/sample_rows.sql":
            yield f"{document.relative_to(root)} names {path}"


def test_both_script_locations_work(workspace: Workspace) -> None:
    """The guide's db/migrations counts from the workspace's folder, ours works from anywhere."""
    assert "(head)" in workspace.alembic("heads", cwd=workspace.path).output
    assert (
        "(head)" in workspace.run("alembic", "-c", "alembic.ini", "heads", cwd=workspace.path / "db").output
    )
    ini = workspace.path / "db/alembic.ini"
    ours, guides = "script_location = %(here)s/migrations", "script_location = db/migrations"
    assert ours in ini.read_text(encoding="utf-8")
    ini.write_text(ini.read_text(encoding="utf-8").replace(ours, guides), encoding="utf-8")
    assert "(head)" in workspace.alembic("heads", cwd=workspace.path).output


REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "aaaaaaaaaaaa"
down_revision = {down!r}


def upgrade() -> None:
    {body}


def downgrade() -> None:
    pass
"""
ADD_RUN = (
    "op.execute(\"INSERT INTO conversations (id, revision) VALUES ('1', '1')\"); "
    'op.execute("INSERT INTO runs (id, conversation_id, agent_id, model, status) '
    "VALUES (gen_random_uuid(), '1', 'a', 'm', 'failed')\"); "
)
ADD_ENUM_VALUE = "op.execute(\"ALTER TYPE run_status ADD VALUE 'lost'\"); "
# For each message: what a revision of this body makes `upgrade head` say.
FAILING_REVISIONS = {
    "psycopg.errors.DuplicateTable": 'op.create_table("runs", sa.Column("id", sa.Integer()))',
    "psycopg.errors.UndefinedTable": 'op.drop_table("nothing")',
    "psycopg.errors.UndefinedColumn": 'op.drop_column("runs", "nothing")',
    "psycopg.errors.UndefinedObject": 'op.drop_index("nothing")',
    "psycopg.errors.NotNullViolation": ADD_RUN
    + 'op.add_column("runs", sa.Column("x", sa.Text(), nullable=False))',
    "psycopg.errors.DependentObjectsStillExist": 'op.drop_table("conversations")',
    "psycopg.errors.DatatypeMismatch": 'op.alter_column("runs", "agent_id", type_=sa.Uuid())',
    "psycopg.errors.UnsafeNewEnumValueUsage": ADD_ENUM_VALUE
    + "op.execute(\"UPDATE runs SET status = 'lost'\")",
    "psycopg.errors.InvalidTextRepresentation": ADD_RUN
    + "op.execute(\"CREATE TYPE few AS ENUM ('running')\"); "
    + 'op.execute("ALTER TABLE runs ALTER COLUMN status DROP DEFAULT"); '
    + 'op.execute("DROP INDEX uq_runs_conversation_id_running"); '
    + 'op.execute("DROP INDEX uq_runs_owner_idempotency_key"); '
    + 'op.execute("ALTER TABLE runs ALTER COLUMN status TYPE few USING status::text::few")',
}
# The revision with the tables of the chassis.
FIRST = "2f6a91c0d7e3"
SERVER = {"DB_USER": "u", "DB_PASS": "p", "DB_DATABASE": "d", "MIGRATE_CONNECT_TIMEOUT": "0.2"}
# For each message: the variables that make `current` say it.
WRONG_SETTINGS = {
    "Nothing answers at the database's address": {"DB_HOST": "127.0.0.1", "DB_PORT": "1", **SERVER},
    "The database's host name can't be resolved": {"DB_HOST": "nowhere.invalid", **SERVER},
    "DB_HOST is set, but DB_USER, DB_DATABASE is missing.": {"DB_HOST": "127.0.0.1"},
    "No database is set for RUNTIME_ENV=prd.": {"RUNTIME_ENV": "prd"},
    "DATABASE_URL can't be read.": {"DATABASE_URL": "nonsense"},
}


# Does what so many calls of `alembic` would do, in forks of one process that has loaded it.
DRIVER = """
import json, os, pathlib, sys, tempfile
import alembic.command, alembic.config, psycopg, sqlalchemy.orm

sys.dont_write_bytecode = True
outputs = {}
for name, step in json.load(sys.stdin).items():
    for path, text in step.get("files", {}).items():
        pathlib.Path(path).write_text(text) if text is not None else pathlib.Path(path).unlink()
    with tempfile.TemporaryFile() as printed:
        if (child := os.fork()) == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            os.environ.update(step.get("env", {}))
            alembic.config.main(["-c", "db/alembic.ini", *step["alembic"]])
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        outputs[name] = (code, printed.read().decode())
json.dump(outputs, sys.stdout)
"""


def drive(workspace: Workspace, steps: dict[str, dict[str, Any]]) -> dict[str, tuple[int, str]]:
    """Take the steps in order. Each writes `files` (or removes them, with None) and calls `alembic` with `env`.

    Returns:
        For each step, by its name, the exit code and what was printed.
    """
    with database_running(workspace):
        printed = workspace.run("python", "-c", DRIVER, stdin=json.dumps(steps)).output
    return {name: (code, text) for name, (code, text) in json.loads(printed).items()}


@pytest.mark.full
def test_messages_of_the_guide(workspace: Workspace) -> None:
    """Each message in the guide's last table appears when what it is said to mean is the case."""
    rows = rows_of(workspace.read("db/README.md"), "When something goes wrong")
    messages = {message.strip("`") for row in rows for message in re.split(r"(?<=`), (?=`)", row[0])}

    head = workspace.alembic("heads").output.split()[0]
    file = "db/migrations/versions/2030_01_01_0000-aaaaaaaaaaaa_failing.py"
    other = "db/migrations/versions/2030_01_01_0000-bbbbbbbbbbbb_other.py"
    empty = REVISION.format(down=head, body="pass")
    tables = "chassis/runs/tables.py"
    declared = workspace.read(tables)
    without_column = declared.replace("    model: Mapped[str]\n", "")
    in_public = declared.replace(
        'text("calls IS NOT NULL")),\n    )',
        'text("calls IS NOT NULL")),\n        {"schema": "public"},\n    )',
    )
    assert declared not in (without_column, in_public)

    # Names that start with a dash are no messages: they must go well.
    steps: dict[str, dict[str, Any]] = {
        "Target database is not up to date.": {"alembic": ["check"]},
        "- upgrade": {"alembic": ["upgrade", "head"]},
        "New upgrade operations detected": {"alembic": ["check"], "files": {tables: without_column}},
        "names the schema 'public'": {"alembic": ["check"], "files": {tables: in_public}},
        "- agree": {"alembic": ["check"], "files": {tables: declared}},
        "Ambiguous walk": {"alembic": ["downgrade", "-1"]},
        # Below the place where the examples' branches begin.
        "- one line": {"alembic": ["downgrade", FIRST]},
        "Relative revision -5 didn't produce 5 migrations": {"alembic": ["downgrade", "-5"]},
        "- all again": {"alembic": ["upgrade", "head"]},
        **{message: {"alembic": ["current"], "env": env} for message, env in WRONG_SETTINGS.items()},
        **{
            message: {
                "alembic": ["upgrade", "head"],
                "files": {file: REVISION.format(down=head, body=body)},
            }
            for message, body in FAILING_REVISIONS.items()
        },
        "- after failures": {"alembic": ["current"]},
        "- upgrade further": {"alembic": ["upgrade", "head"], "files": {file: empty}},
        "The database is at revision …, which this code doesn't have": {
            "alembic": ["upgrade", "head"],
            "files": {file: None},
        },
        "- stamp": {"alembic": ["stamp", "--purge", head]},
        "Can't locate revision identified by '…'": {"alembic": ["upgrade", "deadbeef"]},
        "Multiple head revisions are present for given argument 'head'": {
            "alembic": ["upgrade", "head"],
            "files": {file: empty, other: empty.replace("aaaaaaaaaaaa", "bbbbbbbbbbbb")},
        },
        "Multiple heads are present; please specify the head revision": {
            "alembic": ["revision", "-m", "third"]
        },
        "- one head": {"alembic": ["heads"], "files": {file: None, other: None}},
    }
    nothing_to_write = "Tables and database agree: there is nothing to write a revision for."
    steps["- " + nothing_to_write] = {"alembic": ["revision", "--autogenerate", "-m", "nothing"]}
    results = drive(workspace, steps)

    for name, (code, printed) in results.items():
        assert (code == 0) == name.startswith("- "), f"{name}: exit code {code}\n{printed}"
    assert results["- after failures"][1].rstrip().splitlines()[-1].split()[0] == head, (
        "a failed upgrade left something behind"
    )
    seen = {name.removeprefix("- "): printed for name, (_, printed) in results.items()}
    no_ini = "No 'script_location' key found in configuration"
    seen[no_ini] = workspace.run("alembic", "upgrade", "head", check=False).output
    told = {name for name in steps if not name.startswith("- ")} | {nothing_to_write, no_ini}
    assert told == messages, "the guide's table and this test differ"
    for message in FAILING_REVISIONS:
        assert "A revision failed and was rolled back; those before it stay." in seen[message]
        assert "Traceback" not in seen[message]
    for message in messages:
        for part in re.split(r"…'?", message):
            assert part in seen[message], f"{part!r} is not in what was printed:\n{seen[message]}"


TICKETS = """
from enum import StrEnum

from sqlalchemy import CheckConstraint, Computed, Enum, Index, PrimaryKeyConstraint, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base


class Status(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class Ticket(Base):
    __tablename__ = "tickets"

    id: Mapped[int]
    price: Mapped[int]
    title: Mapped[str]
    done: Mapped[bool]
    total: Mapped[int] = mapped_column(Computed("price * 2"))
    status: Mapped[Status] = mapped_column(
        Enum(Status, name="status", values_callable=lambda values: [value.value for value in values])
    )
    __table_args__ = (
        PrimaryKeyConstraint("id"),
        CheckConstraint("price > 0", name="price"),
        Index("ix_tickets_price", "price", postgresql_where=text("price > 5")),
    )
"""
NOTHING = ("No new upgrade operations detected.",)
# For each row of the guide's table: changes to the class above, and what `check` then says.
UNSEEN: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "a table is renamed": (
        (('"tickets"', '"issues"'),),
        (
            "table issues: the database has nothing, the classes it",
            "table tickets: the database has it, the classes nothing",
        ),
    ),
    "a column is renamed": (
        (("    title:", "    subject:"),),
        (
            "tickets.subject: the database has nothing, the classes the column, text",
            "tickets.title: the database has the column, the classes nothing",
        ),
    ),
    "an enum value is renamed": (
        (('"closed"', '"done"'),),
        ("enum type status: the database has open, closed, the classes open, done",),
    ),
    "a type to which PostgreSQL has no cast": (
        (("    done: Mapped[bool]", "    done: Mapped[bytes]"),),
        ("tickets.done: the database has boolean, the classes bytea",),
    ),
    "an existing table is to be partitioned": (
        (('price > 5")),\n', 'price > 5")),\n        {"postgresql_partition_by": "RANGE (id)"},\n'),),
        ("tickets, partition by: the database has nothing, the classes RANGE (id)",),
    ),
    "the order of columns": (
        (
            (
                "    price: Mapped[int]\n    title: Mapped[str]\n",
                "    title: Mapped[str]\n    price: Mapped[int]\n",
            ),
        ),
        NOTHING,
    ),
}
OTHER_OBJECTS = "functions, triggers, views, sequences of their own, extensions, privileges"
MAKE_OTHER_OBJECTS = """
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER nothing BEFORE UPDATE ON tickets FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE VIEW open_tickets AS SELECT * FROM tickets;
CREATE SEQUENCE numbers;
CREATE EXTENSION IF NOT EXISTS vector;
GRANT SELECT ON tickets TO PUBLIC;
"""


@pytest.mark.full
def test_what_autogenerate_cannot_see(workspace: Workspace) -> None:
    """Autogenerate does with each change in the guide's table what is said there."""
    rows = rows_of(workspace.read("db/README.md"), "What autogenerate can't see")
    assert {row[0] for row in rows} == {*UNSEEN, OTHER_OBJECTS}, "the guide's table and this test differ"

    file = "db/tables/tickets.py"
    steps: dict[str, dict[str, Any]] = {
        "upgrade": {"alembic": ["upgrade", "head"], "files": {file: TICKETS}},
        "autogenerate": {
            "alembic": ["revision", "--autogenerate", "-m", "Tickets", "--rev-id", "aaaaaaaaaaaa"]
        },
        "apply": {"alembic": ["upgrade", "head"]},
        "agree": {"alembic": ["check"]},
    }
    expected: dict[str, tuple[str, ...]] = {"agree": NOTHING, OTHER_OBJECTS: NOTHING}
    for row, (changes, says) in UNSEEN.items():
        for number, (old, new) in enumerate(changes):
            assert old in TICKETS, old
            steps[f"{row} {number}"] = {"alembic": ["check"], "files": {file: TICKETS.replace(old, new)}}
            expected[f"{row} {number}"] = says
    objects = REVISION.format(down="aaaaaaaaaaaa", body=f"op.execute({MAKE_OTHER_OBJECTS!r})")
    steps["make other objects"] = {
        "alembic": ["upgrade", "head"],
        "files": {
            file: TICKETS,
            "db/migrations/versions/objects.py": objects.replace('"aaaaaaaaaaaa"', '"bbbbbbbbbbbb"', 1),
        },
    }
    steps[OTHER_OBJECTS] = {"alembic": ["check"]}
    results = drive(workspace, steps)
    for name, parts in expected.items():
        for part in parts:
            assert part in results[name][1], (
                f"{name}: {part!r} is not in what was printed:\n{results[name][1]}"
            )
    for name in ("upgrade", "autogenerate", "apply", "make other objects"):
        assert results[name][0] == 0, results[name][1]


def test_a_block_that_fails_fails_the_test(tmp_path: Path) -> None:
    """The tests above would see a wrong command, also one in the middle of a block."""
    cases = {
        "```sh\ntrue\nfalse\ntrue\n```\n": "failed with code 1",
        "```console\n$ echo one\none\n$ exit 3\n```\n": "failed with code 3",
        "```sh\necho $not_set\n```\n": "unbound variable",
        "```sh\ncurl http://localhost:8000/nothing\n```\n": "failed with code",
        "```sh\nfalse | cat\n```\n": "failed with code 1",
        "```sh\nuvicorn_is_missing uvicorn\n```\n": "not found",
        "```python\nthis = is = not Python\n```\n": "invalid syntax",
        "<!-- not run by tests: no reason -->\n```sh\nunheard-of\n```\n": "is not known",
        "<!-- not run by tests: no reason -->\n```sh\ncd nowhere\n```\n": "there is no folder nowhere",
    }
    for text, expected in cases.items():
        with pytest.raises((AssertionError, SyntaxError), match=re.escape(expected)):
            run_blocks(read_blocks(text, "case.md"), tmp_path, os.environ)
    kept = "```sh\nkept=1\nmkdir -p a\ncd a\n```\n```sh\ntest $kept = 1\nbasename $PWD\n```\n"
    assert "a" in run_blocks(read_blocks("# T\n" + kept, "case.md"), tmp_path, os.environ)["T"].split()
