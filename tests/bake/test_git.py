"""The first commit: of what the bake wrote, in a repository of its own, whatever git is set to; and no other is touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.belongings import TEMPLATE_FILES, below, look, write
from tests.support.commands import ROOT, TOOLS, Outcome, run
from tests.support.containers import PYTHON, open_builder, reason_against
from tests.support.servers import IN_CI
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

ME = "[user]\nname = Me\nemail = me@example.com\n"
OK = "ok  Start a git repository with a first commit"
SCRIPTS = {name for name in TEMPLATE_FILES if (ROOT / TEMPLATE_FOLDER / name).read_bytes().startswith(b"#!")}


def git(folder: Path, *arguments: str, check: bool = True) -> Outcome:
    return run("git", *arguments, cwd=folder, check=check)


def bake(output: Path, settings: str = ME, env: dict[str, str] | None = None, **answers: str) -> Outcome:
    """Bake with these settings of git's, which may hold {place}: a folder beside the output."""
    output.mkdir(parents=True, exist_ok=True)
    config = output.parent / "gitconfig"
    config.write_text(settings.format(place=output.parent))
    environment = {"GIT_CONFIG_GLOBAL": str(config), **(env or {})}
    return cookiecutter(output, {"install": "no", **answers}, env=environment)


# (git's global settings, files beside the output, what the bake says, whether there is a commit, and a repository)
SETTINGS = {
    "plain": (ME, {}, OK, True, True),
    "crlf": (ME + "[core]\nautocrlf = true\nsafecrlf = true\n", {}, OK, True, True),
    "eol": (ME + "[core]\neol = crlf\nsafecrlf = true\n", {}, OK, True, True),
    "ignore-lock-infra": (
        ME + "[core]\nexcludesFile = {place}/ignore\n",
        {"ignore": "*.lock\ninfra/\n*.md\n.github\nchassis\n*.env\n"},
        OK,
        True,
        True,
    ),
    "ignore-by-template": (
        ME + "[init]\ntemplateDir = {place}/template\n",
        {"template/info/exclude": "infra/\n*.toml\n"},
        OK,
        True,
        True,
    ),
    "file-mode": (ME + "[core]\nfileMode = false\n", {}, OK, True, True),
    "broken": (ME + "[core\n", {}, "No git repository: fatal: bad config line", False, False),
    "missing-filter": (
        ME
        + '[core]\nattributesFile = {place}/attributes\n[filter "gone"]\nclean = no-such-program\nrequired = true\n',
        {"attributes": "*.py filter=gone\n"},
        "No git repository:",
        False,
        False,
    ),
    "broken-template": (
        ME + "[init]\ntemplateDir = {place}/template\n",
        {"template/config": "[core\n"},
        "No git repository: fatal: bad config line",
        False,
        False,
    ),
    "signing-fails": (
        ME + "[commit]\ngpgSign = true\n[gpg]\nprogram = false\n",
        {},
        "the commit didn't succeed",
        False,
        True,
    ),
    "hook-fails": (
        ME + "[core]\nhooksPath = {place}/hooks\n",
        {"hooks/pre-commit": "#!/bin/sh\necho not today\nexit 1\n"},
        "the commit didn't succeed: not today",
        False,
        True,
    ),
    "nobody": ("", {}, "git doesn't know you yet", False, True),
    "half-known": ("[user]\nname = Me\nuseConfigOnly = true\n", {}, "git doesn't know you yet", False, True),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_whatever_git_is_set_to_the_workspace_stays(tmp_path: Path, case: str) -> None:
    settings, files, says, commit, repository = SETTINGS[case]
    write(tmp_path, files)
    for hook in tmp_path.glob("hooks/*"):
        hook.chmod(0o755)
    outcome = bake(tmp_path / "output", settings)
    folder = tmp_path / "output/agent-api"
    assert outcome.code == 0, outcome.output
    assert says in outcome.output
    assert (OK in outcome.output) is commit
    assert Workspace(folder).has_file("db/alembic.ini")
    assert (folder / ".git").exists() is repository
    assert not (folder / ".bake").exists()
    if repository:
        written = {path.relative_to(folder).as_posix() for path in Workspace(folder).files()}
        shown = git(folder, "ls-files", "--stage", "-z").output.split("\0")[:-1]
        staged = {line.split("\t")[1]: line.split(" ")[0] for line in shown}
        assert set(staged) == written | {".cruft.json"}, "something was left out without a word"
        assert {name for name, mode in staged.items() if mode == "100755"} == SCRIPTS & written
        blob = git(folder, "cat-file", "blob", ":scripts/entrypoint.sh").output
        assert "\r" not in blob
    if commit:
        assert git(folder, "log", "--format=%s").output == "Start from cookiecutter-agent-api\n"
        assert git(folder, "status", "--porcelain").output == ""


@pytest.mark.parametrize(
    "program", ["exit 3", 'case "$*" in *update-index*) exit 3;; *) exec {git} "$@";; esac', "kill -9 $$"]
)
def test_a_git_that_fails_is_a_line(tmp_path: Path, program: str) -> None:
    write(tmp_path, {"bin/git": f"#!/bin/sh\n{program.format(git=shutil.which('git'))}\n"})
    (tmp_path / "bin/git").chmod(0o755)
    outcome = bake(tmp_path / "output", env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert outcome.code == 0, outcome.output
    assert "--  No git repository: git ended with" in outcome.output
    assert "Written: agent-api" in outcome.output
    assert not (tmp_path / "output/agent-api/.git").exists()


def test_a_git_that_cannot_be_run_is_a_line(tmp_path: Path) -> None:
    write(tmp_path, {"bin/git": "#!/nowhere/sh\n"})
    (tmp_path / "bin/git").chmod(0o755)
    outcome = bake(tmp_path / "output", env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert outcome.code == 0, outcome.output
    assert "--  No git repository: [Errno " in outcome.output
    assert "Written: agent-api" in outcome.output
    assert not (tmp_path / "output/agent-api/.cruft.json").exists(), "nobody could tell the commit"


@pytest.mark.parametrize("kind", ["repository", "below", "worktree", "submodule", "broken"])
@pytest.mark.parametrize(
    "settings", [ME, ME + "[init]\ntemplateDir = {place}/template\n"], ids=["plain", "init-fails"]
)
def test_inside_a_repository_there_is_no_other_and_no_commit(
    tmp_path: Path, kind: str, settings: str
) -> None:
    """What is staged there stays staged, and a later `git add` takes the workspace's files, not a link to nothing."""
    write(tmp_path, {"template/config": "[core\n"})
    parent = tmp_path / "parent"
    write(parent, {"mine.txt": "one", "staged.txt": "", "changed.txt": "one"})
    if kind == "broken":
        (parent / ".git").mkdir()
    else:
        git(parent, "init", "--quiet")
        git(parent, "add", "mine.txt", "changed.txt")
        git(parent, "commit", "--quiet", "-m", "Mine")
    top = parent
    if kind == "worktree":
        top = tmp_path / "tree"
        git(parent, "worktree", "add", "--quiet", str(top))
    if kind == "submodule":
        other = tmp_path / "other"
        git(parent, "clone", "--quiet", str(parent), str(other))
        git(other, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(parent), "module")
        top = other / "module"
    if kind != "broken":
        write(top, {"staged.txt": "staged", "changed.txt": "two"})
        git(top, "add", "staged.txt")
    output = top / "services/api" if kind == "below" else top
    before = look(tmp_path)
    outcome = bake(output, settings)
    assert outcome.code == 0, outcome.output
    assert f"--  No git repository: the folder lies in that of {top}. Commit it there." in outcome.output
    assert "GitHub takes .github/ only from the top" in outcome.output
    assert "ok  Start a git" not in outcome.output
    after = look(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert not (output / "agent-api/.git").exists()
    if kind != "broken":
        git(top, "add", "--all")
        names = git(top, "ls-files", "--stage").output
        assert "160000" not in names.replace("module\n", "")
        assert f"{(output / 'agent-api').relative_to(top)}/db/alembic.ini" in names


@pytest.mark.parametrize("staged", [True, False])
def test_a_repository_that_was_there_is_not_written_to(tmp_path: Path, staged: bool) -> None:
    folder = tmp_path / "output/agent-api"
    write(folder, {"mine.txt": "one", "README.md": "mine"})
    git(folder, "init", "--quiet")
    if staged:
        git(folder, "add", "mine.txt")
    before = below(look(folder), ".git", "mine.txt")
    outcome = cookiecutter(
        tmp_path / "output", {"install": "no"}, options=("--no-input", "--overwrite-if-exists")
    )
    assert outcome.code == 0, outcome.output
    assert below(look(folder), ".git", "mine.txt") == before
    assert git(folder, "log", check=False).code != 0


# ── rights to run and to read ──


def zipped(tmp_path: Path) -> Path:
    """The template as a zip file with a folder in it, as GitHub hands it out. Unpacking drops the rights."""
    folder = copy_of_template(tmp_path / "zip/cookiecutter-agent-api")
    return Path(shutil.make_archive(str(tmp_path / "template"), "zip", folder.parent, folder.name))


@pytest.mark.parametrize("kind", ["zip", "file-mode", "no-modes"])
def test_scripts_can_be_run_where_the_template_or_git_has_lost_that(tmp_path: Path, kind: str) -> None:
    template, settings = ROOT, ME
    if kind == "zip":
        template = zipped(tmp_path)
    if kind == "file-mode":
        settings += "[core]\nfileMode = false\n"
    if kind != "zip":
        template = copy_of_template(tmp_path / "template")
        for path in template.rglob("*.sh"):
            path.chmod(0o644)
    (tmp_path / "gitconfig").write_text(settings)
    outcome = cookiecutter(
        tmp_path / "output",
        {"install": "no", "use_single_machine": "yes", "use_kubernetes": "yes"},
        template=template,
        env={"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")},
    )
    assert outcome.code == 0, outcome.output
    folder = tmp_path / "output/agent-api"
    git(folder, "clone", "--quiet", ".", str(tmp_path / "clone"))
    for place in (folder, tmp_path / "clone"):
        assert {name for name in SCRIPTS if os.access(place / name, os.X_OK)} == SCRIPTS
        assert run(place / "scripts/entrypoint.sh", "echo", "started").output == "started\n"


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_a_strict_umask_hides_nothing_in_git_and_scripts_run(tmp_path: Path, umask: int) -> None:
    """The user's own files stay the user's: who may read them, the umask says, in the workspace as in the template."""
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        "--no-input",
        "-o",
        str(tmp_path),
        str(ROOT),
        "install=no",
    ]
    done = subprocess.run(command, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "agent-api"
    assert git(folder, "status", "--porcelain").output == ""
    shown = git(folder, "ls-files", "--stage").output.splitlines()
    assert {line.split("\t")[1] for line in shown if line.startswith("100755")} >= {"scripts/entrypoint.sh"}
    assert os.access(folder / "scripts/entrypoint.sh", os.X_OK)


@pytest.mark.cloud
def test_the_image_of_a_private_clone_can_be_read_and_started_by_its_user(tmp_path: Path) -> None:
    """Under umask 077, and without the right to run scripts."""
    if reason := reason_against():
        (pytest.fail if IN_CI else pytest.skip)(f"{reason}. Not checked: who may read the image.")
    outcome = bake(tmp_path / "output", init_git="no", python_version=PYTHON)
    assert outcome.code == 0, outcome.output
    workspace = tmp_path / "output/agent-api"
    (tmp_path / "containers").mkdir()
    with open_builder(tmp_path / "containers", TOOLS / "uv", workspace) as builder:
        builder.lock(workspace)
        for path in [workspace, *workspace.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)
        builder.build(workspace, "private")
        image = builder.mount("private")
        script = "import api.main, chassis.app, os; assert not os.access('/app', os.W_OK); print('read')"
        entrypoint = image.config["Entrypoint"]
        database = {"RUNTIME_ENV": "dev", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
        started = run(*image.command(database, *entrypoint, "python", "-c", script), timeout=120)
        assert started.output.endswith("read\n")
