"""Updating a workspace with cruft when the template has changed: the user's work and the template's both stay."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, UV, Outcome, run
from tests.support.releases import change, commit, git
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

ODD = {
    "project_name": 'Zoë’s "Best" 100% \\ API',
    "project_slug": "zoes-api",
    "author": 'O\'Brien & "Söhne" GmbH',
    "use_ecs": False,
    "license": "Proprietary",
}


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


def create(template: Path, output: Path, answers: dict[str, object], tool: str = "cruft") -> Workspace:
    output.mkdir(parents=True, exist_ok=True)
    if tool == "cruft":
        cruft(output, "create", template, "--no-input", "--extra-context", json.dumps(answers))
    else:
        typed = {name: str(value) for name, value in answers.items()}
        cookiecutter(output, typed, template=template, check=True)
    workspace = Workspace(output / str(answers["project_slug"]))
    # cruft writes its own file after the hook, which has committed just that: an update finds nothing uncommitted.
    assert git(workspace.path, "status", "--porcelain") == ""
    assert ".cruft.json" in git(workspace.path, "ls-files")
    return workspace


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


@pytest.mark.parametrize("tool", ["cookiecutter", pytest.param("cruft", marks=pytest.mark.full)])
def test_changes_of_the_user_and_of_the_template_both_stay(template: Path, tmp_path: Path, tool: str) -> None:
    # Only what we write keeps braces from being rendered once more.
    braces = {"description": "It's for {{ braces }}, {% raw %}."} if tool == "cookiecutter" else {}
    workspace = create(template, tmp_path / "output", ODD | braces, tool)
    assert (workspace.path / ".venv/bin/alembic").exists(), (
        "cruft create installs and verifies as Cookiecutter does"
    )
    assert not (workspace.path / "infra").exists()
    assert cruft(workspace.path, "diff").output.strip() == ""

    change(workspace.path, "README.md", "\n", "\nWritten by the team.\n")
    change(workspace.path, "chassis/database/engine.py", '"""Engines', '"""The team\'s engines')
    (workspace.path / "agents/ours.py").write_text('"""The team\'s."""\n', encoding="utf-8")
    commit(workspace.path, "Our work")
    difference = cruft(workspace.path, "diff").output
    # Of the files that the template wrote; nothing of what the hook does besides.
    assert set(re.findall(r"^diff --git \S+?/(\S+)", difference, re.MULTILINE)) == {
        "README.md",
        "chassis/database/engine.py",
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
    assert "The team's engines" in workspace.read("chassis/database/engine.py")
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
    workspace.run("python", "-m", "chassis", "verify")
    commit(workspace.path, "Update")

    # A second update has nothing to do.
    assert "already up to date" in cruft(workspace.path, "update", "--skip-apply-ask").output
    assert git(workspace.path, "status", "--porcelain") == ""


@pytest.mark.full
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


@pytest.mark.full
def test_the_documented_commands_work_at_once(template: Path, tmp_path: Path) -> None:
    """Those of the template's README, and those that a workspace's README has for one that has lost its file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = run_block(text, "cookiecutter https", tmp_path / "one", template)
    assert "Up to date: the template's newest is" in told
    workspace = Workspace(tmp_path / "one/agent-api")
    assert "already up to date" in cruft(workspace.path, "update").output
    # One that came from an archive, or is older than that file.
    git(workspace.path, "rm", "--quiet", ".cruft.json")
    commit(workspace.path, "As from an archive")
    run_block(workspace.read("README.md"), "cruft link", workspace.path, template)
    assert "already up to date" in cruft(workspace.path, "update").output
    python = workspace.path / ".venv/bin/python"
    assert "Up to date" in run(python, "-m", "chassis", "update", cwd=workspace.path).output


def test_a_bake_remembers_where_it_came_from(template: Path, tmp_path: Path) -> None:
    """The address from which others can get it too, without secrets, and the commit; from a copy or an archive nothing."""
    commit_now = git(template, "rev-parse", "HEAD").strip()
    pushed = tmp_path / "pushed"
    git(tmp_path, "clone", "--quiet", str(template), str(pushed))
    git(pushed, "remote", "set-url", "origin", "https://user:secret@example.com/owner/template.git")
    git(tmp_path, "clone", "--quiet", "--bare", str(template), "served.git")
    served = f"file://{tmp_path}/served.git"
    outer = tmp_path / "outer"
    git(tmp_path, "init", "--quiet", str(outer))
    copy_of_template(outer / "inside")
    git(outer, "add", "inside")
    git(outer, "commit", "--quiet", "--message", "One")
    untracked = copy_of_template(outer / "untracked")
    archive = tmp_path / "template.zip"
    git(template, "archive", "--prefix=template/", "--output", str(archive), "HEAD")
    places: dict[str, tuple[str | Path, tuple[str, ...], tuple[str, str | None] | None]] = {
        "a folder": (template, (), (str(template), None)),
        "a relative folder": ("template", (), (str(template), None)),
        "a clone": (pushed, (), ("https://example.com/owner/template.git", None)),
        "an address": (served, (), (served, None)),
        "a part of a repository": (outer / "inside", (), (str(outer), "inside")),
        "a part that is named": (outer, ("--directory", "inside"), (str(outer), "inside")),
        "a copy": (copy_of_template(tmp_path / "copy"), (), None),
        "a copy in a repository": (untracked, (), None),
        "an archive": (archive, (), None),
    }
    for number, (what, (address, options, expected)) in enumerate(places.items()):
        output = tmp_path / f"output{number}"
        env = {"HOME": str(tmp_path)}
        answers = {"install": "no", "init_git": "no"}
        cookiecutter(
            output,
            answers,
            template=address,
            options=("--no-input", *options),
            check=True,
            env=env,
            cwd=tmp_path,
        )
        file = output / "agent-api/.cruft.json"
        assert file.exists() is (expected is not None), what
        if expected:
            state = json.loads(file.read_text(encoding="utf-8"))
            assert (state["template"], state["directory"]) == expected, what
            assert state["commit"] == (
                git(outer, "rev-parse", "HEAD").strip() if "part" in what else commit_now
            )
            assert "secret" not in file.read_text(encoding="utf-8")


def test_what_was_remembered_before_stays(template: Path, tmp_path: Path) -> None:
    """Baked over, a workspace keeps the file, which is the user's by then."""
    workspace = tmp_path / "agent-api"
    workspace.mkdir()
    (workspace / ".cruft.json").write_text("{}", encoding="utf-8")
    options = ("--no-input", "--overwrite-if-exists")
    cookiecutter(tmp_path, {"install": "no"}, template=template, options=options, check=True)
    assert (workspace / ".cruft.json").read_text(encoding="utf-8") == "{}"


def run_block(text: str, names: str, cwd: Path, template: Path) -> str:
    """Run the first block of code that has these words in it, for a template that is here, and answer with Enter."""
    block = next(block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if names in block)
    script = re.sub(r"https://github.com/OWNER/\S+", str(template), block)
    script = script.replace("uvx cookiecutter", f"{sys.executable} -m cookiecutter --no-input")
    script = script.replace("uvx cruft", f"{sys.executable} -m cruft")
    cwd.mkdir(exist_ok=True)
    env = {"TEMPLATE": str(template), "PATH": f"{UV.parent}{os.pathsep}{os.environ['PATH']}"}
    return run("bash", "-ec", script, cwd=cwd, env=env, stdin="\n" * 60).output


@pytest.mark.full
@pytest.mark.parametrize("answers", [{}, {"project_name": ODD["project_name"], "author": ODD["author"]}])
@pytest.mark.parametrize(
    "options", [(), ("--skip", "README.md"), ("--checkout", "main"), ("--directory", "inside")]
)
def test_what_the_first_commit_has_is_what_cruft_writes(
    template: Path, tmp_path: Path, options: tuple[str, ...], answers: dict[str, object]
) -> None:
    if "--directory" in options:
        git(template, "init", "--quiet", str(tmp_path / "outer"))
        copy_of_template(tmp_path / "outer/inside")
        commit(tmp_path / "outer", "One")
        template = tmp_path / "outer"
    (tmp_path / "output").mkdir()
    context = json.dumps({"install": False, "project_slug": "agent-api"} | answers)
    cruft(tmp_path / "output", "create", template, "--no-input", "--extra-context", context, *options)
    folder = tmp_path / "output/agent-api"
    assert git(folder, "status", "--porcelain") == ""
    assert ".cruft.json" in git(folder, "ls-files")
    assert git(folder, "log", "--format=%s") == "Start from cookiecutter-agent-api\n"


def test_cruft_refuses_the_same_answers(template: Path, tmp_path: Path) -> None:
    arguments = ("create", template, "--no-input", "--extra-context", '{"project_slug": "Bad Slug"}')
    outcome = cruft(tmp_path, *arguments, check=False)
    assert outcome.code != 0
    assert "The slug 'Bad Slug' can't be used" in " ".join(outcome.output.split())
    assert list(tmp_path.iterdir()) == [template]
