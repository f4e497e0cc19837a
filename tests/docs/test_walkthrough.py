"""The README's walk-throughs are done to the letter: what they add is served, and passes the workspace's own checks."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.command_blocks import Block, run_blocks
from tests.support.documents import SECTIONS, blocks_of
from tests.support.workspaces import Workspace

NO_EXAMPLES = {"use_assistant": False, "use_incidents": False, "use_knowledge": False}


def sections(workspace: Workspace) -> list[str]:
    """The headings below "Make it yours"."""
    text = workspace.read("README.md").partition("\n## Make it yours\n")[2].partition("\n## ")[0]
    return re.findall(r"^### (.+)$", text, re.MULTILINE)


def walk_through(workspace: Workspace) -> list[Block]:
    blocks = [block for block in blocks_of(workspace, "README.md") if block.heading in SECTIONS]
    assert all(block.path or block.is_commands for block in blocks), "a file without its name"
    assert all(block.reason is None for block in blocks), "a command that isn't run"
    return blocks


def answers(printed: str) -> list[Any]:
    """The JSON documents in what was printed, in their order; curl writes no line break after one."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while start := re.compile(r"^[{\[]|(?<=[}\]])[{\[]", re.MULTILINE).search(printed, at):
        try:
            document, at = decoder.raw_decode(printed, start.start())
            found.append(document)
        except json.JSONDecodeError:
            at = start.end()
    return found


@pytest.mark.full
def test_the_walk_through_makes_it_yours(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    assert tuple(sections(workspace)) == SECTIONS
    before = {path: path.read_bytes() for path in workspace.files()}
    workspace.alembic("upgrade", "head")  # The README's first section has done it.
    printed = run_blocks(walk_through(workspace), workspace.path, shell_environment)

    own = {path.relative_to(workspace.path).as_posix() for path in workspace.files() if path not in before}
    [revision] = {path for path in own if path.startswith("db/migrations/versions/")}
    assert own == {
        "agents/notices.py",
        "agents/tasks.py",
        "agents/translator.py",
        "api/notices.py",
        "api/routes/notices.py",
        "api/routes/tasks.py",
        "api/settings.py",
        "db/tables/tasks.py",
        "notices.txt",
        "tests/test_tasks.py",
        revision,
    }
    changed = {
        path.relative_to(workspace.path).as_posix()
        for path, was in before.items()
        if path.read_bytes() != was
    }
    assert changed == {"api/main.py"}, "no other file needs to know of what is added"
    assert workspace.read(revision).count("op.create_table(") == 1

    assert "2 passed" in printed["A test"]
    assert "ok  upgrade head again" in printed["A test"]
    run, tasks = answers(printed["A test"])
    assert run["agent_id"] == "tasks"
    assert 'The tool add_task says: ["New task: water the plants"]' in run["output"]
    assert tasks == ["New task: water the plants"]

    run, notices = answers(printed["A middleware"])
    assert 'The tool read_notices says: ["Lunch is at noon."]' in run["output"]
    assert notices == ["Lunch is at noon."]
    assert "content-encoding: gzip" in printed["A middleware"].lower()

    assert "No new upgrade operations detected." in workspace.alembic("check").output
    workspace.run("ruff", "check")
    workspace.run("ruff", "format", "--check")
    workspace.run("lint-imports", "--no-cache")
    workspace.run("mypy")
    # The team's own tests, with the new agents among the agents.
    assert "passed" in workspace.run("pytest").output


def test_the_setting_and_the_background_task(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    """The variables of the setting are read, and what changes meanwhile is seen by an endpoint and a tool."""
    blocks = [block for block in walk_through(workspace) if block.path and "tasks" not in block.path]
    workspace.alembic("upgrade", "head")
    commands = """\
echo One > board.txt
export NOTICES_FILE=board.txt NOTICES_SECONDS=0.1
uv run uvicorn api.main:app
"""
    look = """\
curl http://localhost:8000/v1/notices
echo Two > board.txt
until curl http://localhost:8000/v1/notices | grep --quiet Two; do sleep 0.1; done
curl --header 'Content-Type: application/json' --data '{"input": "Notices?"}' http://localhost:8000/v1/agents/notices/runs
"""
    serve = [Block("the test", 1, "Serve", "sh", text, None) for text in (commands, look)]
    printed = run_blocks([*blocks, *serve], workspace.path, shell_environment)
    first, run = answers(printed["Serve"])
    assert first == ["One"]
    assert 'The tool read_notices says: ["Two"]' in run["output"]


@pytest.mark.full
@pytest.mark.parametrize("left", [None, "use_assistant", "use_incidents", "use_knowledge"])
def test_the_first_minutes_with_each_example_left_out(
    left: str | None,
    bake: Callable[..., Workspace],
    installed: Workspace,
    shell_environment: dict[str, str],
) -> None:
    """The README and api/README.md ask an agent that is there; where none is, adding one comes first."""
    workspace = bake(**NO_EXAMPLES | ({left: True} if left else {}))
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    agent = left.removeprefix("use_") if left else "translator"
    first = [block for block in blocks_of(workspace, "README.md") if block.heading == "Five minutes"]
    assert [block.path for block in first if block.path] == ([] if left else ["agents/translator.py"])
    # `uv sync` would take packages out of the environment, which the tests share.
    first = [replace(block, text=block.text.replace("uv sync\n", "")) for block in first]
    blocks = [*first, *blocks_of(workspace, "api/README.md")]
    blocks = [block for block in blocks if "cp example.env" not in block.text]
    environment = {**shell_environment, "UV_NO_SYNC": "1"}
    printed = run_blocks(blocks, workspace.path, environment, keep_serving=True)
    assert f'"agent_id":"{agent}"' in printed["Five minutes"]
    assert "event: done" in printed["Five minutes"]
    assert "Hello!" in printed["Five minutes"].partition("event: done")[2]
    assert "id: 4\n" in printed["Runs"], "there is more to come after the third event"
    assert re.search(r"ak_\w{12}_\w{64}", printed["API keys"])
    assert (sections(workspace)[0] == "An agent") is bool(left)
