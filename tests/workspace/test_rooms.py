"""The chassis stands alone: it imports nothing of the team's, and knows which of its files were changed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.places import request, served
from tests.support.servers import free_port
from tests.support.workspaces import Workspace

# What a team may do away with: its agents, its endpoints, and the tables of the examples.
EXAMPLES = ("agents/*.py", "api/routes/*.py", "db/tables/incidents.py")


def imports_of(workspace: Workspace) -> tuple[int, str]:
    outcome = workspace.run("lint-imports", "--no-cache", check=False)
    return outcome.code, outcome.output


def changed_files(workspace: Workspace) -> list[str]:
    """The files of the chassis that the overview calls changed."""
    printed = workspace.run("python", "-m", "chassis").output
    return re.findall(r"^  (chassis/\S+)$", printed, re.MULTILINE)


def test_without_the_teams_own_it_migrates_starts_and_is_ready(workspace: Workspace) -> None:
    removed = [path for pattern in EXAMPLES for path in workspace.path.glob(pattern)]
    removed = [path for path in removed if path.name != "__init__.py"]
    assert {path.parent.name for path in removed} == {"agents", "routes", "tables"}
    for path in removed:
        path.unlink()
    workspace.alembic("upgrade", "head")
    port = free_port()
    with served(workspace, port, {}):
        assert request(port, "GET", "/ready") == 200
        assert request(port, "GET", "/v1/agents") == 200
    assert imports_of(workspace)[0] == 0


@pytest.mark.parametrize("room", ["agents", "api", "db.tables", "evals", "tests"])
def test_an_import_of_the_teams_in_the_chassis_is_found(workspace: Workspace, room: str) -> None:
    code, printed = imports_of(workspace)
    assert code == 0, printed
    file = workspace.path / "chassis/runs/records.py"
    file.write_text(file.read_text(encoding="utf-8") + f"\nimport {room}\n", encoding="utf-8")
    code, printed = imports_of(workspace)
    assert code == 1
    assert "The chassis imports nothing of the team's BROKEN" in printed
    assert f"chassis.runs.records -> {room}" in printed


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_file_of_the_chassis_that_was_edited_is_named(
    bake: Callable[..., Workspace], installed: Workspace, line_end: str
) -> None:
    """Also on a machine whose git writes other line ends."""
    workspace = bake(use_knowledge=False)
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    files = [path for path in workspace.files() if "chassis" in path.relative_to(workspace.path).parts]
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"\n", line_end.encode()))
    assert changed_files(workspace) == []
    told = {line.split()[1] for line in workspace.read("chassis/digests.txt").splitlines()}
    chassis = workspace.path / "chassis"
    assert {path.relative_to(chassis).as_posix() for path in files} <= told | {"digests.txt"}

    for name in ("runs/records.py", "chat/app.js"):
        edit(chassis / name)
    assert changed_files(workspace) == ["chassis/chat/app.js", "chassis/runs/records.py"]


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")
