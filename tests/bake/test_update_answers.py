"""Features that are switched on and off later: an update with other answers comes to what a bake with them is."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from covertable import make

from tests.support.choices import NONE_USED, PYTHON_VERSIONS
from tests.support.commands import UV, Outcome, run
from tests.support.releases import commit, git
from tests.support.workspaces import QUESTIONS, Workspace, cookiecutter

Answers = dict[str, Any]
VERSIONS = "db/migrations/versions"


def offered() -> dict[str, list[Any]]:
    """Every answer of every question that has some to choose from, the default one first."""
    found = {
        name: [default, not default] if isinstance(default, bool) else default
        for name, default in QUESTIONS.items()
        if not name.startswith("_")
        and isinstance(default, bool | list)
        and name not in {"install", "init_git"}
    }
    return found | {"python_version": list(PYTHON_VERSIONS)}


# Each row is followed by the next one, so that each pair of answers is come to from others.
ROWS: list[Answers] = make(offered(), strength=2)
STEPS = list(pairwise([*ROWS, ROWS[0]]))


def typed(answers: Answers) -> dict[str, str]:
    """Write answers as they are typed."""
    return {
        name: ("yes" if value else "no") if isinstance(value, bool) else value
        for name, value in answers.items()
    }


def bake(released: Path, output: Path, answers: Answers, *options: str) -> Workspace:
    address = f"git+file://{released}"
    told = typed(answers) | {"install": "no"}
    cookiecutter(
        output, told, template=address, options=("--no-input", *options), cwd=output.parent, check=True
    )
    return Workspace(output / "agent-api")


def update(
    workspace: Workspace, answers: Answers, *options: str, python: Path, check: bool = True
) -> Outcome:
    words = [word for name, value in typed(answers).items() for word in ("--answer", f"{name}={value}")]
    command: list[str | Path] = [python, "-m", "chassis", "update", *options, *words]
    return run(*command, cwd=workspace.path, env={"UV": str(UV)}, check=check, timeout=900)


def files(workspace: Workspace) -> dict[str, bytes]:
    return {path.relative_to(workspace.path).as_posix(): path.read_bytes() for path in workspace.files()}


@pytest.mark.parametrize(
    ("before", "after"),
    # `make test` takes each third of them.
    [
        pytest.param(*step, id=str(number), marks=[] if number % 3 == 0 else pytest.mark.full)
        for number, step in enumerate(STEPS)
    ],
)
def test_an_update_comes_to_what_a_bake_is(
    released: Path, tmp_path: Path, before: Answers, after: Answers
) -> None:
    workspace = bake(released, tmp_path / "ours", before, "--checkout", "v0.1.0")
    update(workspace, after, "--no-check", python=Path(sys.executable))
    assert git(workspace.path, "diff", "--name-only", "--diff-filter=U") == ""
    fresh, ours = files(bake(released, tmp_path / "fresh", after)), files(workspace)
    # A revision stays, as a database may be at it, and what joins it to the others.
    left = {name for name in ours.keys() - fresh.keys() if name.startswith(VERSIONS)}
    assert ours.keys() - left == fresh.keys()
    assert {name for name in fresh if ours[name] != fresh[name]} == set()


EVERYTHING = dict.fromkeys(NONE_USED, True)


@pytest.mark.full
@pytest.mark.parametrize(
    ("before", "after"), [(NONE_USED, EVERYTHING), (EVERYTHING, NONE_USED)], ids=["on", "off"]
)
def test_what_is_switched_passes_its_checks(
    released: Path, tmp_path: Path, before: Answers, after: Answers
) -> None:
    """With a revision of the team's own in between; tables of what is switched off are dropped by the team's word only."""
    workspace = bake(released, tmp_path / "ours", before, "--checkout", "v0.1.0")
    run(UV, "sync", cwd=workspace.path)
    workspace.alembic("upgrade", "head")
    workspace.alembic("revision", "-m", "Ours")
    workspace.alembic("upgrade", "head")
    commit(workspace.path, "Ours")
    is_off = before is EVERYTHING
    options = ["--no-check"] if is_off else []
    outcome = update(workspace, after, *options, python=workspace.path / ".venv/bin/python")
    verified = workspace.run("python", "-m", "chassis", "verify", check=False)
    assert (verified.code, "incidents" in verified.output) == ((1, True) if is_off else (0, False))
    assert ("The revisions of what is switched off stay" in outcome.output) is is_off
    workspace.alembic("upgrade", "head")
    if is_off:
        workspace.alembic("revision", "--autogenerate", "-m", "Drop what is switched off")
        (revision,) = (workspace.path / VERSIONS).glob("*drop_what_is_switched_off.py")
        dropped = revision.read_text(encoding="utf-8").partition("def downgrade")[0]
        assert 'op.drop_table("incidents")' in dropped
        assert "conversations" not in dropped
        workspace.alembic("upgrade", "head")
    workspace.alembic("check")
    workspace.run("python", "-m", "chassis", "verify")
    assert workspace.alembic("heads").output.count("(head)") == 1
