"""A workspace passes its own checks: style, format, imports, types and tests, whatever the answers were."""

import hashlib
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.choices import SINGLE
from tests.support.once import Once
from tests.support.servers import missing
from tests.support.workspaces import Workspace

# The steps of `python -m chassis check` that are quick.
CHECKS = (
    ("ruff", "check", "--no-cache"),
    ("ruff", "format", "--no-cache", "--check"),
    ("lint-imports", "--no-cache"),
    ("mypy",),
    ("pytest", "tests"),
)
# Those of the migrations alone: what is around them is somebody else's.
CHECKS_OF_MIGRATIONS = (*CHECKS[:2], ("python", "-m", "chassis", "check"))
ALL_STEPS = [
    "Style",
    "Format",
    "Imports",
    "Types",
    "Migrations",
    "Tests",
    "Evaluation, offline",
    "Tests of the chassis",
]
WITHOUT_PARTS = {
    "use_knowledge": False,
    "use_chat_page": False,
    "use_openai_api": False,
    "use_ag_ui": True,
}
PARTS = WITHOUT_PARTS.keys()
OF_PARTS = [f"chassis/tests/test_{name}.py" for name in ("ag_ui", "agents", "keys", "openapi")]


def passes(workspace: Workspace, *more: str) -> None:
    """Check it, with more tests than the team's, if given."""
    checks = CHECKS if workspace.has_file("chassis/app.py") else CHECKS_OF_MIGRATIONS
    for command in (*checks, ("pytest", *more)) if more else checks:
        assert workspace.run(*command, timeout=600).code == 0
    assert not (workspace.path / ".postgres").exists(), "the tests ran on the developer's own database"


def contents(workspace: Workspace) -> str:
    """A digest of all that the checks read: Python outside of infra/, and what pyproject.toml says of more than names."""
    project = tomllib.loads(workspace.read("pyproject.toml"))
    names: Mapping[str, Any] = project.pop("project")
    digest = hashlib.sha256(repr((project, names["dependencies"])).encode())
    for path in workspace.files():
        name = path.relative_to(workspace.path).as_posix()
        if not name.startswith(("infra/", "deploy/", ".github/")) and path.suffix in {
            ".py",
            ".ini",
            ".mako",
            ".js",
        }:
            digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def test_the_default_workspace_passes(workspace: Workspace) -> None:
    passes(workspace)


@pytest.mark.full
@pytest.mark.parametrize("answers", SINGLE)
def test_every_answer_passes(ready: Callable[..., Workspace], once: Once, answers: dict[str, Any]) -> None:
    """Answers that change nothing of what is checked are checked together."""
    workspace = ready(**answers)
    # Those that change the chassis have its tests of whatever it serves run too.
    more = [name for name in OF_PARTS if workspace.has_file(name)] if PARTS & answers.keys() else []
    once.folder(f"checked-{contents(workspace)}", lambda _: passes(workspace, *more))


@pytest.mark.full
@pytest.mark.long
def test_all_that_ci_checks(ready: Callable[..., Workspace]) -> None:
    """The chassis' own tests too, as continuous integration runs them."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        missing("chromium")
    workspace = ready(init_git=True)
    printed = workspace.run("python", "-m", "chassis", "check", timeout=2700).output
    assert re.findall(r"^== (.+): ok \(", printed, re.MULTILINE) == ALL_STEPS, printed
    assert printed.endswith("\nAll is well.\n")
    # Nothing is skipped because a program is missing.
    assert not re.search(r"\d+ skipped", printed), printed


@pytest.mark.full
@pytest.mark.long
def test_the_chassis_passes_its_tests_without_the_parts_that_answers_leave_out(
    ready: Callable[..., Workspace],
) -> None:
    """All but those of the tools for revisions and of single processes, which no answer changes."""
    workspace = ready(**WITHOUT_PARTS)
    unchanged = (
        "lint",
        "migrations",
        "test_engine.py",
        "test_entrypoint.py",
        "test_load.py",
        "test_overload.py",
        "test_roles.py",
    )
    others = [f"--ignore=chassis/tests/{name}" for name in unchanged]
    printed = workspace.run("pytest", "chassis/tests", *others, timeout=2700).output
    assert not re.search(r"\d+ skipped", printed), printed
