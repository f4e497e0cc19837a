"""`python -m chassis update`: over released versions of the template, on workspaces that teams have changed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.belongings import files
from tests.support.commands import UV
from tests.support.releases import AGENT, ANSWERS, TABLE, change, commit, git, install, python_of, update
from tests.support.workspaces import Workspace, cookiecutter


@pytest.fixture
def workspace(ours: Workspace) -> Workspace:
    return ours


def staged(workspace: Workspace) -> dict[str, str]:
    lines = git(workspace.path, "status", "--porcelain", "--no-renames", "--untracked-files=all").splitlines()
    return {line[3:]: line[:2] for line in lines}


def test_untouched(workspace: Workspace, first: Workspace, released: Path, tmp_path: Path) -> None:
    """It is then what a bake of the newest version is, and a second update has nothing to do."""
    told = update(workspace, "--no-check", "--report", "report.md", python=python_of(first)).output
    assert "From v0.1.0 to v0.4.0." in told
    assert re.search(r"Rename the setting `OLD` to `NEW`\.\n +Look at `api/main.py`\.", told)
    assert "use_feature: True" in told
    report = workspace.read("report.md")
    assert report.index("0.4.0") < report.index("Less is there.") < report.index("A feature.")
    assert "The first." not in report
    (workspace.path / "report.md").unlink()
    assert all(state[1] == " " for state in staged(workspace).values()), staged(workspace)
    commit(workspace.path, "Update")
    answers = ANSWERS | {"install": "no"}
    cookiecutter(tmp_path / "new", answers, template=released, check=True, cwd=tmp_path)
    fresh = Workspace(tmp_path / "new/zoes-api")
    names = {path.relative_to(fresh.path) for path in fresh.files()}
    assert {path.relative_to(workspace.path) for path in workspace.files()} == names
    for name in names:
        assert (workspace.path / name).read_bytes() == (fresh.path / name).read_bytes(), name
    ours, theirs = (json.loads(place.read(".cruft.json")) for place in (workspace, fresh))
    assert ours["commit"] == theirs["commit"]
    # What was answered at the bake stays, braces and all.
    theirs["context"]["cookiecutter"]["install"] = ours["context"]["cookiecutter"]["install"]
    assert ours["context"] == theirs["context"]
    assert "Up to date: the template's newest is v0.4.0" in update(workspace, python=python_of(first)).output
    # Braces survive any number of updates.
    update(workspace, "--no-check", "--answer", "use_feature=no", python=python_of(first))
    assert not workspace.has_file("FEATURE.md")
    assert ANSWERS["project_name"] in workspace.read("README.md").replace("\\", "")


@pytest.mark.full
def test_with_agents_and_revisions_of_its_own(workspace: Workspace) -> None:
    """One head, all checks pass, nothing of the team's is changed, and it can be undone as a whole."""
    install(workspace)
    ours = {"agents/translator.py": AGENT, "db/tables/tasks.py": TABLE}
    for name, text in ours.items():
        (workspace.path / name).write_text(text, encoding="utf-8")
    change(workspace.path, "README.md", "\n", "\nOurs.\n")
    workspace.alembic("upgrade", "head")
    workspace.alembic("revision", "--autogenerate", "-m", "Add tasks")
    workspace.alembic("upgrade", "head")
    commit(workspace.path, "Ours")
    before = staged(workspace)
    assert before == {}
    told = update(workspace, python=python_of(workspace)).output
    assert "Heads joined by a merge revision" in told
    assert "Packages installed, and uv.lock renewed" in told
    assert "README.md: yours" in told
    assert "Tests: ok" in told
    assert "FAILED" not in told
    for name, text in ours.items():
        assert workspace.read(name) == text
    assert len(workspace.alembic("heads").output.split("(head)")) == 2
    (joined,) = (workspace.path / "db/migrations/versions").glob("*join_our_revisions*")
    assert "v0.4.0" in joined.read_text(encoding="utf-8")
    assert "Ours." in workspace.read("README.md")
    # The database that was there goes on.
    workspace.alembic("upgrade", "head")
    workspace.alembic("check")
    assert all(state[1] == " " for state in staged(workspace).values()), staged(workspace)
    git(workspace.path, "reset", "--hard", "--quiet")
    assert staged(workspace) == {}
    assert not joined.exists()


@pytest.mark.full
def test_with_changes_in_the_chassis(workspace: Workspace, first: Workspace) -> None:
    """They are merged, into renamed files too; what was removed stays away, what was moved is followed."""
    change(workspace.path, "chassis/errors.py", '"""', '"""Ours. ')
    change(workspace.path, "chassis/runs/tables.py", '"""', '"""Ours. ')
    git(workspace.path, "rm", "--quiet", "example.env")
    git(workspace.path, "mv", "chassis/health/routes.py", "chassis/health/paths.py")
    commit(workspace.path, "Ours")
    told = update(workspace, "--no-check", python=python_of(first)).output
    assert not workspace.has_file("chassis/errors.py")
    assert workspace.read("chassis/errors2.py").startswith('"""Ours. ')
    tables = workspace.read("chassis/runs/tables.py")
    assert tables.startswith('"""Ours. ')
    assert "note: Mapped" in tables
    assert "example.env: removed here, so it stays away" in told
    assert not workspace.has_file("example.env")
    assert workspace.has_file("chassis/health/paths.py")
    assert not workspace.has_file("chassis/health/routes.py")


def test_conflicting_lines(workspace: Workspace, first: Workspace) -> None:
    """All lines of both sides are there, marked; nothing else is done before they are mended, and then the rest is."""
    change(workspace.path, "example.env", "\n", "\n# Ours.\n")
    change(workspace.path, "OPERATIONS.md", "\n", "\nOurs.\n")
    change(workspace.path, "AGENTS.md", "\n", "\nNo conflict.\n")
    commit(workspace.path, "Ours")
    outcome = update(workspace, "--no-check", python=python_of(first), check=False)
    assert outcome.code == 1
    assert "example.env: changed here and there" in outcome.output
    assert "OPERATIONS.md: changed here, removed from the template" in outcome.output
    assert "AGENTS.md:" not in outcome.output
    assert not list(workspace.path.rglob("*.rej"))
    text = workspace.read("example.env")
    assert "# Ours.\n=======\n# New in the template." in text
    assert "Ours." in workspace.read("OPERATIONS.md")
    again = update(workspace, "--go-on", "--no-check", python=python_of(first), check=False)
    assert again.code == 1
    assert "Conflicts, to be mended first" in again.output
    refused = update(workspace, python=python_of(first), check=False)
    assert refused.code == 1
    assert "uncommitted changes" in refused.output
    (workspace.path / "example.env").write_text("# Both.\n", encoding="utf-8")
    git(workspace.path, "add", "example.env", "OPERATIONS.md")
    done = update(workspace, "--go-on", "--no-check", python=python_of(first)).output
    assert "From v0.1.0 to v0.4.0." in done
    commit(workspace.path, "Update")
    nothing = update(workspace, "--go-on", python=python_of(first), check=False)
    assert (nothing.code, "No update is underway" in nothing.output) == (1, True)


@pytest.mark.full
def test_one_version_at_a_time(workspace: Workspace, first: Workspace) -> None:
    """Over all versions it comes to the same; an example that is switched off leaves its revisions, which databases are at."""
    for number in (2, 3, 4):
        told = update(workspace, "--no-check", "--to", f"0.{number}.0", python=python_of(first)).output
        assert f"to v0.{number}.0." in told
        assert ("Rename the setting" in told) is (number == 2)
        commit(workspace.path, f"0.{number}.0")
    versions = workspace.path / "db/migrations/versions"
    before = {path.name for path in versions.glob("*.py")}
    told = update(workspace, "--no-check", "--answer", "use_incidents=no", python=python_of(first)).output
    assert "a database may be at it" in told
    assert not workspace.has_file("agents/incidents.py")
    assert not workspace.has_file("db/tables/incidents.py")
    assert list(versions.glob("*7c0e5b9d2a41*"))
    assert before <= {path.name for path in versions.glob("*.py")}
    heads = workspace.run(str(python_of(first)), "-m", "alembic", "-c", "db/alembic.ini", "heads").output
    assert len(heads.splitlines()) == 1, heads


@pytest.mark.full
def test_a_workspace_in_a_larger_repository(first: Workspace, tmp_path: Path) -> None:
    """Only its folder changes."""
    git(tmp_path, "init", "--quiet", "whole")
    whole = tmp_path / "whole"
    shutil.copytree(
        first.path, whole / "services/ours", ignore=shutil.ignore_patterns(".venv", ".git", ".postgres")
    )
    (whole / "README.md").write_text("Of all.\n", encoding="utf-8")
    (whole / "example.env").write_text("Of all.\n", encoding="utf-8")
    commit(whole, "One")
    workspace = Workspace(whole / "services/ours")
    change(workspace.path, "AGENTS.md", "\n", "\nOurs.\n")
    commit(whole, "Ours")
    update(workspace, "--no-check", python=python_of(first))
    changed = git(whole, "status", "--porcelain", "--no-renames").splitlines()
    assert changed
    assert all(line[3:].startswith("services/ours/") for line in changed), changed
    assert workspace.has_file("FEATURE.md")
    assert "# New in the template." in workspace.read("example.env")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during", [pytest.param("... Fetch", marks=pytest.mark.full), "... Render"])
def test_an_interruption_changes_nothing(
    workspace: Workspace, first: Workspace, tmp_path: Path, during: str, number: signal.Signals
) -> None:
    (tmp_path / "temporary").mkdir()
    seen = files(workspace.path, without=[".git", "__pycache__"])
    with subprocess.Popen(
        [python_of(first), "-u", "-m", "chassis", "update"],
        cwd=workspace.path,
        env={**os.environ, "UV": str(UV), "TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(during):
                time.sleep(0.4 if during == "... Render" else 0)
                process.send_signal(number)
                break
        said = process.stdout.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert files(workspace.path, without=[".git", "__pycache__"]) == seen
    assert staged(workspace) == {}
    assert list((tmp_path / "temporary").iterdir()) == []


def refusals(released: Path) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """What is done first, the options, and what it then says."""
    other = released.parent / "other"
    if not other.exists():
        git(released.parent, "init", "--quiet", "other")
        (other / "README.md").write_text("Another.\n", encoding="utf-8")
        commit(other, "One")
    simple = released.parent / "simple"
    if not simple.exists():
        git(released.parent, "init", "--quiet", "simple")
        (simple / "cookiecutter.json").write_text('{"name": "x"}', encoding="utf-8")
        (simple / "{{cookiecutter.name}}").mkdir()
        for text in ("One", "Next"):
            (simple / "{{cookiecutter.name}}/README.md").write_text(text, encoding="utf-8")
            commit(simple, text)
        git(simple, "tag", "next")
    first = git(simple, "rev-parse", "HEAD^").strip()
    foreign = {"template": str(simple), "commit": first, "context": {"cookiecutter": {"name": "x"}}}
    return {
        "uncommitted": ("echo >> README.md", (), "There are uncommitted changes"),
        "untracked": ("touch new.txt", (), "There are uncommitted changes"),
        "no file": ("git rm -q .cruft.json; git commit -qm x", (), "There is no .cruft.json"),
        "no JSON": ("echo x > .cruft.json; git commit -qam x", (), ".cruft.json can't be read"),
        "other JSON": ("echo '[]' > .cruft.json; git commit -qam x", (), ".cruft.json can't be read"),
        "nobody there": (
            f"sed -i 's|{released}|{released}-gone|' .cruft.json; git commit -qam x",
            (),
            "can't be fetched",
        ),
        "another template": (
            f"sed -i 's|{released}|{other}|' .cruft.json; git commit -qam x",
            (),
            "has no commit",
        ),
        "another kind of template": (
            f"echo '{json.dumps(foreign)}' > .cruft.json; git commit -qam x",
            ("--to", "next"),
            "is another template's",
        ),
        "no version": ("true", ("--to", "9.9.9"), "has no version '9.9.9'. The newest are: v0.1.0, v0.2.0"),
        "an option for a version": ("true", ("--to=--all",), "has no version"),
        "no question": ("true", ("--answer", "use_nothing=yes"), "doesn't ask for use_nothing"),
        "no answer": ("true", ("--answer", "use_feature"), "QUESTION=ANSWER"),
        "wrong answer": ("true", ("--answer", "project_slug=A B"), "can't be used"),
        "no boolean": ("true", ("--answer", "use_ecs=perhaps"), "can't be rendered"),
        "a file in the way": (
            "echo FEATURE.md >> .git/info/exclude; echo ours > FEATURE.md",
            (),
            "files of the same name: FEATURE.md",
        ),
        "no list": (
            "sed -i 's/^keep = .*/keep = 1/' pyproject.toml; git commit -qam x",
            (),
            "is a list of names",
        ),
        "no repository": ("rm -rf .git", (), "git init"),
        "no commit": ("rm -rf .git; git init -q", (), "git init"),
        "nothing underway": ("true", ("--go-on",), "No update is underway"),
        "no git": ("true", (), "git can't be run"),
        "nothing to do": ("true", ("--to", "v0.1.0"), "Up to date"),
    }


def test_what_is_refused_changes_nothing(first: Workspace, released: Path, tmp_path: Path) -> None:
    for number, (what, (before, options, says)) in enumerate(refusals(released).items()):
        git(tmp_path, "clone", "--quiet", str(first.path), f"w{number}")
        workspace = Workspace(tmp_path / f"w{number}")
        subprocess.run(["bash", "-ec", before], cwd=workspace.path, check=True)
        seen = files(workspace.path, without=[".git", "__pycache__"])
        env = {"UV": str(UV)} | ({"PATH": str(tmp_path / "nothing")} if what == "no git" else {})
        outcome = workspace.run(
            str(python_of(first)), "-m", "chassis", "update", *options, env=env, check=False
        )
        assert says in " ".join(outcome.output.split()), (what, outcome.output)
        assert "Traceback" not in outcome.output, what
        assert (outcome.code == 0) is (what == "nothing to do"), what
        assert files(workspace.path, without=[".git", "__pycache__"]) == seen, what
