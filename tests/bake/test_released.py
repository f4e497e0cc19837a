"""What has been released: its revisions never change, and workspaces of it can be updated to what is here now."""

import re
import shutil
from pathlib import Path

import pytest

from tests.support.commands import ROOT, UV, run
from tests.support.releases import AGENT, TABLE, change, commit, git, install, python_of, update
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

VERSIONS = f"{TEMPLATE_FOLDER}/db/migrations/versions"
NEXT = "9999.0.0"


def released() -> dict[str, str]:
    """The released versions and their commits, the newest first.

    A version is its tag or, in a clone without tags, the commit that dated it in the changelog.
    """
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = {}
    for version in re.findall(r"(?m)^## \[(\d+\.\d+\.\d+)\] - ", log):
        tag = run("git", "rev-parse", "--verify", "--quiet", f"v{version}^{{commit}}", check=False)
        dated = git(ROOT, "log", "--reverse", "--format=%H", f"-S## [{version}]", "--", "CHANGELOG.md")
        commits = tag.output.split() if tag.code == 0 else dated.split()
        if commits:  # else it is being released just now
            found[version] = commits[0]
    return found


def test_the_changelog_and_the_versions_agree() -> None:
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (newest, *_) = re.findall(r"(?m)^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", log)
    told = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    chassis = (ROOT / TEMPLATE_FOLDER / "chassis/__init__.py").read_text(encoding="utf-8")
    assert f'\nversion = "{newest}"\n' in told
    assert f'\n__version__ = "{newest}"\n' in chassis


def test_released_revisions_never_change() -> None:
    for version, commit_of in released().items():
        for name in git(ROOT, "ls-tree", "-r", "-z", "--name-only", commit_of, VERSIONS).split("\0")[:-1]:
            was = git(ROOT, "show", f"{commit_of}:{name}")
            assert (ROOT / name).exists(), f"{name}, which {version} has, is gone"
            assert (ROOT / name).read_text(encoding="utf-8") == was, (
                f"{name} is another one than in {version}"
            )


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The template with its released versions, and what is here now, committed or not, as the next one."""
    folder = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", "--no-tags", str(ROOT), "template")
    for version, commit_of in released().items():
        git(folder, "tag", f"v{version}", commit_of)
    shutil.copytree(folder / ".git", tmp_path / "git")
    shutil.rmtree(folder)
    copy_of_template(folder)
    shutil.move(tmp_path / "git", folder / ".git")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "Next")
    git(folder, "tag", f"v{NEXT}")
    return folder


@pytest.mark.full
def test_the_last_two_versions_can_be_updated(template: Path, tmp_path: Path) -> None:
    """With agents, tables, revisions and changes of a team's own: one head, what is checked of revisions passes."""
    for version in list(released())[:2]:
        place = tmp_path / version
        place.mkdir()
        options = ("--no-input", "--checkout", f"v{version}")
        address = f"git+file://{template}"
        cookiecutter(place, {"install": "no"}, template=address, options=options, cwd=place, check=True)
        workspace = Workspace(place / "agent-api")
        run(UV, "sync", cwd=workspace.path)
        ours = {"agents/translator.py": AGENT, "db/tables/tasks.py": TABLE}
        for name, text in ours.items():
            (workspace.path / name).write_text(text, encoding="utf-8")
        change(workspace.path, "README.md", "\n", "\nOurs.\n")
        change(workspace.path, "Dockerfile", "\n", "\n# Ours.\n")
        workspace.alembic("upgrade", "head")
        workspace.alembic("revision", "--autogenerate", "-m", "Add tasks")
        workspace.alembic("upgrade", "head")
        commit(workspace.path, "Ours")
        told = update(workspace, "--no-check", python=python_of(workspace)).output
        assert f"to v{NEXT}." in told
        assert git(workspace.path, "diff", "--name-only", "--diff-filter=U") == ""
        for name, text in ours.items():
            assert workspace.read(name) == text
        assert "\nOurs.\n" in workspace.read("README.md")
        assert "# Ours." in workspace.read("Dockerfile")
        install(workspace)
        workspace.alembic("upgrade", "head")
        workspace.alembic("check")
        assert workspace.alembic("heads").output.count("(head)") == 1
        workspace.run("python", "-m", "ruff", "check")
        workspace.run("python", "-m", "chassis", "lint")
