"""The documents of a workspace, and what their commands work on."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.command_blocks import Block, read_blocks
from tests.support.workspaces import Workspace

# Every section of "Make it yours" in the README, in its order.
SECTIONS = (
    "An agent",
    "A table",
    "A tool",
    "An endpoint",
    "A test",
    "A setting",
    "A background task",
    "A dependency of a tool",
    "A middleware",
)


def blocks_of(workspace: Workspace, document: str) -> list[Block]:
    return read_blocks(workspace.read(document), document)


def markdown_files(workspace: Workspace) -> list[Path]:
    return [path for path in workspace.files() if path.suffix == ".md"]


def rows_of(document: str, heading: str) -> list[list[str]]:
    """The rows of the table under a heading, as lists of cells, without the head."""
    table = document.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")]
    return rows[2:]


@contextmanager
def database_running(workspace: Workspace) -> Iterator[None]:
    """Keep the embedded database running meanwhile, as a service beside would, since each start takes its time."""
    code = "from chassis.database import embedded; embedded.start(); print('runs', flush=True); input()"
    python = workspace.path / ".venv/bin/python"
    with subprocess.Popen(
        [python, "-c", code], cwd=workspace.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "runs\n"
        yield
        holder.stdin.write("\n")
