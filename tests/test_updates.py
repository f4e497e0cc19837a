"""Updating a workspace with cruft when the template has changed: the user's work and the template's both stay."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import TEMPLATE_FOLDER, Outcome, Workspace, copy_of_template, run

ODD = {
    "project_name": 'Zoë’s "Best" 100% \\ API',
    "project_slug": "zoes-api",
    "author": 'O\'Brien & "Söhne" GmbH',
    "use_ecs": False,
    "license": "Proprietary",
}


def git(folder: Path, *arguments: str) -> str:
    return run("git", *arguments, cwd=folder).output


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", message)


def cruft(folder: Path, *arguments: str | Path, check: bool = True, temporary: Path | None = None) -> Outcome:
    env = {"TMPDIR": str(temporary)} if temporary else {}
    return run(sys.executable, "-m", "cruft", *arguments, cwd=folder, env=env, check=check)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The template as a repository of its own, for a test to change."""
    folder = copy_of_template(tmp_path / "template")
    git(folder, "init", "--quiet")
    commit(folder, "One")
    return folder


def create(template: Path, output: Path, answers: dict[str, object]) -> Workspace:
    output.mkdir(parents=True, exist_ok=True)
    cruft(output, "create", template, "--no-input", "--extra-context", json.dumps(answers))
    workspace = Workspace(output / str(answers["project_slug"]))
    # cruft writes its own file after the hook's first commit.
    assert git(workspace.path, "status", "--porcelain").split() == ["??", ".cruft.json"]
    commit(workspace.path, "Keep track of the template")
    return workspace


def change(folder: Path, name: str, before: str, after: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def change_template(template: Path) -> None:
    """Change a file, add one, take one away, and use a filter that the version before didn't have."""
    change(template, f"{TEMPLATE_FOLDER}/db/__init__.py", '"""The database', '"""The updated database')
    (template / TEMPLATE_FOLDER / "db" / "fresh.py").write_text(
        '"""New in the template."""\n', encoding="utf-8"
    )
    (template / TEMPLATE_FOLDER / "example.env").unlink()
    change(
        template,
        "local_extensions.py",
        '"checked": checked,',
        '"checked": checked,\n            "shout": str.upper,',
    )
    (template / TEMPLATE_FOLDER / "SHOUT.md").write_text("# {{ 'updated' | shout }}\n", encoding="utf-8")
    change(template, f"{TEMPLATE_FOLDER}/infra/README.md", "\n", "\nNew about ECS.\n")
    commit(template, "Two")


def test_changes_of_the_user_and_of_the_template_both_stay(template: Path, tmp_path: Path) -> None:
    workspace = create(template, tmp_path / "output", ODD)
    assert (workspace.path / ".venv/bin/alembic").exists(), (
        "cruft create installs and verifies as Cookiecutter does"
    )
    assert not (workspace.path / "infra").exists()
    assert cruft(workspace.path, "diff").output.strip() == ""

    change(workspace.path, "README.md", "\n", "\nWritten by the team.\n")
    change(workspace.path, "db/session.py", '"""Engines', '"""The team\'s engines')
    (workspace.path / "agents/ours.py").write_text('"""The team\'s."""\n', encoding="utf-8")
    commit(workspace.path, "Our work")
    difference = cruft(workspace.path, "diff").output
    # Of the files that the template wrote; nothing of what the hook does besides.
    assert set(re.findall(r"^diff --git \S+?/(\S+)", difference, re.MULTILINE)) == {
        "README.md",
        "db/session.py",
    }
    assert cruft(workspace.path, "check", check=False).code == 0

    change_template(template)
    assert cruft(workspace.path, "check", check=False).code == 1
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    updated = cruft(workspace.path, "update", "--skip-apply-ask", temporary=temporary)
    assert "Install" not in updated.output
    assert "Verify" not in updated.output
    assert list(temporary.iterdir()) == []

    assert "Written by the team." in workspace.read("README.md")
    assert "The team's engines" in workspace.read("db/session.py")
    assert workspace.has_file("agents/ours.py")
    assert "The updated database" in workspace.read("db/__init__.py")
    assert workspace.has_file("db/fresh.py")
    assert workspace.read("SHOUT.md") == "# UPDATED\n"
    assert not workspace.has_file("example.env")
    assert not (workspace.path / "infra").exists(), "what the answers switched off stays away"
    changed = git(
        workspace.path, "-c", "status.renames=false", "status", "--porcelain", "--untracked-files=all"
    )
    assert {line[3:] for line in changed.splitlines()} == {
        ".cruft.json",
        "SHOUT.md",
        "db/__init__.py",
        "db/fresh.py",
        "example.env",
    }
    assert not list(workspace.path.rglob("*.rej"))
    assert cruft(workspace.path, "check", check=False).code == 0
    workspace.run("python", "-m", "db.verify")
    commit(workspace.path, "Update")

    # A second update has nothing to do.
    assert "already up to date" in cruft(workspace.path, "update", "--skip-apply-ask").output
    assert git(workspace.path, "status", "--porcelain") == ""


def test_an_update_with_another_answer_adds_what_it_switches_on(template: Path, tmp_path: Path) -> None:
    answers = ODD | {"install": False, "use_github_actions": False}
    workspace = create(template, tmp_path / "output", answers)
    assert not (workspace.path / ".github").exists()
    cruft(
        workspace.path,
        "update",
        "--skip-apply-ask",
        "--variables-to-update",
        json.dumps({"use_github_actions": True}),
    )
    assert list((workspace.path / ".github").rglob("*.yml"))
    assert not (workspace.path / "infra").exists()
    assert not (workspace.path / ".venv").exists()


def test_cruft_refuses_the_same_answers(template: Path, tmp_path: Path) -> None:
    arguments = ("create", template, "--no-input", "--extra-context", '{"project_slug": "Bad Slug"}')
    outcome = cruft(tmp_path, *arguments, check=False)
    assert outcome.code != 0
    assert "The slug 'Bad Slug' can't be used" in " ".join(outcome.output.split())
    assert list(tmp_path.iterdir()) == [template]
