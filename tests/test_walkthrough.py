"""The README's walk-through "Add an agent" is done to the letter, and the new agent answers."""

import json

from tests.command_blocks import run_blocks
from tests.conftest import Workspace
from tests.test_docs import blocks_of

SECTION = "Add an agent"


def test_the_walk_through_adds_an_agent(workspace: Workspace, shell_environment: dict[str, str]) -> None:
    before = {path.relative_to(workspace.path).as_posix() for path in workspace.files()}
    blocks = [block for block in blocks_of(workspace, "README.md") if block.heading == SECTION]
    assert all(block.path or block.is_commands for block in blocks), "a file without its name"
    workspace.alembic("upgrade", "head")  # The README's first section has done it.
    printed = run_blocks(blocks, workspace.path, shell_environment)[SECTION]

    added = {path.relative_to(workspace.path).as_posix() for path in workspace.files()} - before
    [revision] = {path for path in added if path.startswith("db/migrations/versions/")}
    assert added == {"db/tables/tasks.py", "agents/tasks.py", "tests/test_tasks.py", revision}
    assert workspace.read(revision).count("op.create_table(") == 1
    assert "ok  upgrade head again" in printed
    assert "1 passed" in printed

    answers, read = printed[printed.index('{"agents"') :], json.JSONDecoder().raw_decode
    agents, end = read(answers)
    answer, _ = read(answers[end:].lstrip())
    assert {agent["id"] for agent in agents["agents"]} > {"assistant", "tasks"}
    assert answer["agent_id"] == "tasks"
    assert 'The tool add_task says: ["New task: water the plants"]' in answer["output"]

    assert "No new upgrade operations detected." in workspace.alembic("check").output
    workspace.run("ruff", "check")
    workspace.run("ruff", "format", "--check")
    workspace.run("mypy")
