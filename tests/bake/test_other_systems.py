"""What can be shown of Windows and macOS without them: names, line ends, and that the hooks need no shell.

The workflow of this template bakes and checks there.
"""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.releases import change, commit, git, python_of, update
from tests.support.workspaces import Workspace

# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .]$')
LONGEST = 260  # characters of a path, unless a machine is set otherwise
# What a shell would be asked by.
SHELL = {"system", "popen", "getoutput", "getstatusoutput"}


def test_every_name_can_be_written_everywhere(bake: Callable[..., Workspace]) -> None:
    workspace = bake(project_slug="a" * 40)
    names = [path.relative_to(workspace.path).as_posix() for path in workspace.files()]
    for name in names:
        for part in name.split("/"):
            assert not RESERVED.fullmatch(part), name
            assert not FORBIDDEN.search(part), name
    # Of two that differ in case only, one would overwrite the other.
    assert len({name.lower() for name in names}) == len(names)
    # In the folder of a person with a long name, below some folders of theirs.
    assert max(map(len, names)) < LONGEST - 120, max(names, key=len)


def test_the_hooks_need_no_shell() -> None:
    for path in [*(ROOT / "hooks/bake").glob("*.py"), ROOT / "local_extensions.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                assert called not in SHELL, f"{path.name}:{node.lineno}"
                given = {keyword.arg for keyword in node.keywords}
                assert "shell" not in given, f"{path.name}:{node.lineno}"


@pytest.mark.full
def test_line_ends_of_another_system(first: Workspace, tmp_path: Path) -> None:
    """Git that turns line ends by itself changes none, and an update finds nothing in its way."""
    crlf = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    git(tmp_path, *crlf, "clone", "--quiet", str(first.path), "ours")
    workspace = Workspace(tmp_path / "ours")
    for setting in ("core.autocrlf=true", "core.eol=crlf"):
        git(workspace.path, "config", *setting.split("="))
    assert not [path for path in workspace.files() if b"\r" in path.read_bytes()]
    # An editor of theirs has written one that git takes over with line feeds.
    change(workspace.path, "example.env", "\n", "\r\n# Ours.\r\n")
    change(workspace.path, "AGENTS.md", "\n", "\r\nOurs.\r\n")
    commit(workspace.path, "Ours")
    outcome = update(workspace, "--no-check", python=python_of(first), check=False)
    assert "example.env: changed here and there" in outcome.output
    assert "AGENTS.md:" not in outcome.output
    assert json.loads(workspace.read(".cruft.json"))["commit"]
    staged = git(workspace.path, "diff", "--cached", "--numstat", "AGENTS.md").split()
    assert not staged or int(staged[0]) < 20, "every line of it changed"
