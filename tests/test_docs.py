"""What the documentation of a workspace says is true: its commands run, its names and links exist."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_blocks import Block, broken_links, check_names, read_blocks, run_blocks
from tests.conftest import UV, Workspace

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


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a newcomer's terminal: uv is on PATH, what the template's tests use isn't."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").symlink_to(shutil.which(UV) or UV)
    path = [str(programs), *(part for part in os.environ["PATH"].split(os.pathsep) if part != str(UV.parent))]
    return {**os.environ, "PATH": os.pathsep.join(path)}


def blocks_of(workspace: Workspace, document: str) -> list[Block]:
    return read_blocks(workspace.read(document), document)


def markdown_files(workspace: Workspace) -> list[Path]:
    return [path for path in workspace.files() if path.suffix == ".md"]


def two_heads(workspace: Workspace) -> Callable[[], None]:
    """Write two revisions on top of the same one, as two people would."""

    def prepare() -> None:
        head = workspace.alembic("heads").output.split()[0]
        for message in ("Tickets of one", "Topics of another"):
            workspace.alembic("revision", "-m", message, "--splice", "--head", head)

    return prepare


def test_the_commands_of_the_guide(workspace: Workspace, shell_environment: dict[str, str]) -> None:
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
    assert "there is nothing to write a revision for" in printed["Development"]
    assert "CREATE TABLE tickets" in printed["Looking around"]
    revision = next((workspace.path / "db/migrations/versions").glob("*_your_revision_message.py"))
    assert revision.read_text(encoding="utf-8").count("op.create_table(") == 1
    written = ("db/tables", "db/migrations/versions")
    workspace.run("ruff", "check", *written)
    workspace.run("ruff", "format", "--check", *written)


def test_the_commands_of_the_readme(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    # The workspace's own tests run in full elsewhere; here it is the command that counts.
    environment = {**shell_environment, "PYTEST_ADDOPTS": "-k settings"}
    printed = run_blocks(blocks_of(workspace, "README.md"), workspace.path, environment)
    first = printed["Five minutes"]
    assert '"id":"assistant"' in first
    assert '"conversation_id":"' in first
    assert "event: done" in first
    assert "Hello!" in first.partition("event: done")[2]
    assert "passed" in printed["Tests and checks"]


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
    assert {block.document for block in marked} >= {"README.md", "db/README.md", "infra/README.md"}
    for block in marked:
        check_names(block, workspace.path)


def test_every_document_with_commands_is_run_or_marked(installed: Workspace) -> None:
    run_here = {"README.md", "db/README.md"}
    for path in markdown_files(installed):
        document = path.relative_to(installed.path).as_posix()
        if document not in run_here:
            for block in blocks_of(installed, document):
                assert not block.is_commands or block.reason, f"{block.where} is neither run nor marked"


def test_commands_known_by_heart(bake: Callable[..., Workspace]) -> None:
    guide = bake().read("db/README.md").splitlines()
    for command in FIXED_COMMANDS + ECS_COMMANDS:
        assert any(command in line for line in guide), command
    other = bake(project_slug="support").read("db/README.md")
    assert "docker exec -it support alembic -c db/alembic.ini upgrade head" in other
    assert "ECS_CLUSTER=prd-support-cluster\n" in other
    assert "CONTAINER_NAME=prd-support\n" in other
    assert "aws " not in bake(use_ecs=False).read("db/README.md")


@pytest.mark.parametrize("use_github_actions", [True, False])
@pytest.mark.parametrize("use_ecs", [True, False])
def test_links_and_paths_exist(
    use_ecs: bool, use_github_actions: bool, bake: Callable[..., Workspace]
) -> None:
    workspace = bake(use_ecs=use_ecs, use_github_actions=use_github_actions)
    documents = markdown_files(workspace)
    assert list(broken_links(workspace.path, documents)) == []
    assert [path for document in documents for path in missing_paths(workspace.path, document)] == []


def missing_paths(root: Path, document: Path) -> Iterator[str]:
    """Yield the paths in backticks, such as `db/tables`, that don't exist. The guide's example may."""
    folders = "agents|api|db|scripts|tests|infra|\\.github"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", document.read_text(encoding="utf-8")):
        if not (root / path).exists() and "2026_11_24_0931" not in path:
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
import alembic_postgresql_enum

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
ADD_ENUM_VALUE = 'op.add_enum_value(enum_schema="public", enum_name="run_status", new_value="lost"); '
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
    "New enum values can not be set due to some row": ADD_RUN
    + 'op.sync_enum_values(enum_schema="public", enum_name="run_status", new_values=["running"], '
    "affected_columns=[alembic_postgresql_enum.TableReference(table_schema='public', table_name='runs', "
    "column_name='status', existing_server_default=\"'running'::run_status\")])",
}
SERVER = {"DB_USER": "u", "DB_PASS": "p", "DB_DATABASE": "d"}
# For each message: the variables that make `current` say it.
WRONG_SETTINGS = {
    "The database can't be reached:` … `Connection refused": {
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "1",
        **SERVER,
    },
    "The database can't be reached: failed to resolve host": {"DB_HOST": "nowhere.invalid", **SERVER},
    "DB_HOST is set, but DB_USER, DB_DATABASE is missing.": {"DB_HOST": "127.0.0.1"},
    "No database is set for RUNTIME_ENV=prd.": {"RUNTIME_ENV": "prd"},
    "DATABASE_URL can't be read.": {"DATABASE_URL": "nonsense"},
}


# Does in one process what so many calls of `alembic` would do, as it takes a second to start.
DRIVER = """
import contextlib, io, json, os, pathlib, sys, traceback
from alembic.config import main

outputs = {}
for message, step in json.load(sys.stdin).items():
    path, text = step.get("write", (None, None))
    if path and text is None:
        pathlib.Path(path).unlink()
    elif path:
        pathlib.Path(path).write_text(text)
    os.environ.update(step.get("env", {}))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(["-c", "db/alembic.ini", *step["alembic"]])
        except SystemExit:
            pass
        except Exception:
            traceback.print_exc()
    for name in step.get("env", {}):
        del os.environ[name]
    outputs[message] = printed.getvalue()
json.dump(outputs, sys.stdout)
"""


def test_messages_of_the_guide(workspace: Workspace) -> None:
    """Each message in the guide's last table appears when what it is said to mean is the case."""
    told = workspace.read("db/README.md").partition("## When something goes wrong")[2]
    rows = re.findall(r"^\| (`.*?`) \| ", told, re.MULTILINE)
    messages = {message.strip("`") for row in rows for message in re.split(r"(?<=`), (?=`)", row)}

    head = workspace.alembic("heads").output.split()[0]
    file = "db/migrations/versions/2030_01_01_0000-aaaaaaaaaaaa_failing.py"
    other = "db/migrations/versions/2030_01_01_0000-bbbbbbbbbbbb_other.py"
    empty = REVISION.format(down=head, body="pass")
    steps: dict[str, dict[str, Any]] = {
        "Target database is not up to date.": {"alembic": ["check"]},
        "-- upgraded": {"alembic": ["upgrade", "head"]},
        "Tables and database agree: there is nothing to write a revision for.": {
            "alembic": ["revision", "--autogenerate", "-m", "nothing"]
        },
        "Relative revision -5 didn't produce 5 migrations": {"alembic": ["downgrade", "-5"]},
        **{message: {"alembic": ["current"], "env": env} for message, env in WRONG_SETTINGS.items()},
        **{
            message: {
                "alembic": ["upgrade", "head"],
                "write": [file, REVISION.format(down=head, body=body)],
            }
            for message, body in FAILING_REVISIONS.items()
        },
        "-- after the failures": {"alembic": ["current"]},
        "-- upgraded further": {"alembic": ["upgrade", "head"], "write": [file, empty]},
        "Can't locate revision identified by '…'": {"alembic": ["upgrade", "head"], "write": [file, None]},
        "-- stamped": {"alembic": ["stamp", "--purge", head]},
        "-- one more": {"alembic": ["heads"], "write": [file, empty]},
        "Multiple head revisions are present for given argument 'head'": {
            "alembic": ["upgrade", "head"],
            "write": [other, empty.replace("aaaaaaaaaaaa", "bbbbbbbbbbbb")],
        },
        "Multiple heads are present; please specify the head revision": {
            "alembic": ["revision", "-m", "third"]
        },
    }
    printed = workspace.run("python", "-c", DRIVER, stdin=json.dumps(steps)).output.rstrip().splitlines()
    seen: dict[str, str] = json.loads(printed[-1])
    # What `current` and `heads` tell goes past the driver, straight to the output.
    assert printed[:-1] == [head, "aaaaaaaaaaaa (head)"], "a failed upgrade left something behind"
    seen = {message: output for message, output in seen.items() if not message.startswith("--")}

    for name in (file, other):
        (workspace.path / name).unlink()
    without_ini = workspace.run("alembic", "upgrade", "head", check=False)
    seen["No 'script_location' key found in configuration"] = without_ini.output
    declared = workspace.read("db/tables/runs.py")
    for message, old, new in (
        ("New upgrade operations detected", "    model: Mapped[str]\n", ""),
        ("names the schema 'public'", "started_at.desc()),)", 'started_at.desc()), {"schema": "public"})'),
    ):
        assert old in declared
        (workspace.path / "db/tables/runs.py").write_text(declared.replace(old, new), encoding="utf-8")
        seen[message] = workspace.alembic("check", check=False).output

    assert set(seen) == messages, "the guide's table and this test differ"
    for message, output in seen.items():
        for part in re.split(r"` … `|…'?", message):
            assert part in output, f"{part!r} is not in what was printed:\n{output}"


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
