"""Nothing of a user's is lost, whatever lies in the folder, whatever is answered, whenever it is interrupted."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.belongings import TEMPLATE_FILES, Belongings, below, look, start_bake, wait_until, write
from tests.support.commands import ROOT, run
from tests.support.workspaces import QUESTIONS, Workspace, cookiecutter, copy_of_template

OVER = ("--no-input", "--overwrite-if-exists")
AROUND = (*OVER, "--skip-if-file-exists")
# What a team has of its own beside the template's files, in the folders that answers switch off above all.
MINE: Mapping[str, str | bytes] = {
    "infra/terraform.tfstate": "{}",
    "infra/deliver/ours.sh": "#!/bin/sh\n",
    ".github/workflows/mine.yml": "on: push\n",
    ".github/CODEOWNERS": "* @me\n",
    "deploy/compose/mine.env": "SECRET=1\n",
    "deploy/kubernetes/base/mine.yaml": "kind: Mine\n",
    "deploy/kubernetes/overlays/mine/kustomization.yaml": "resources: []\n",
    "chassis/chat/mine.js": "mine()\n",
    "chassis/knowledge/mine.bin": b"\0\xff\r\n",
    "agents/mine.py": "AGENT = None\n",
    "api/routes/mine.py": "router = None\n",
    "db/migrations/versions/2027_01_01-abc_mine.py": "mine = 1\n",
    "tests/mine/test_mine.py": "def test(): ...\n",
    "notes with spaces.txt": "mine\r\n",
    "größe.txt": "ß",
    ".env": "OPENAI_API_KEY=secret\n",
    ".venv-of-mine/x": "x",
}
# The template's names with the team's contents.
CHANGED: Mapping[str, str | bytes] = {
    name: f"mine: {name}\n"
    for name in (
        "README.md",
        "pyproject.toml",
        "agents/assistant.py",
        "agents/knowledge.py",
        "api/main.py",
        "chassis/app.py",
        "chassis/chat/app.js",
        "chassis/protocols/ag_ui.py",
        "db/alembic.ini",
        "db/migrations/env.py",
        "deploy/compose/backup.sh",
        "deploy/kubernetes/deploy.sh",
        "infra/README.md",
        "infra/delivery.yaml",
        ".github/workflows/ci.yml",
        ".github/workflows/deliver.yml",
        ".gitignore",
        "scripts/entrypoint.sh",
        "tests/test_assistant.py",
    )
} | {"uv.lock": "mine: uv.lock\n", ".cruft.json": "{}"}

EVERYTHING = {**MINE, **CHANGED}


def make_repository(folder: Path) -> None:
    """With a commit, something staged and something uncommitted."""
    git = ["git", "-c", "user.name=Me", "-c", "user.email=me@example.com"]
    run(*git, "init", "--quiet", cwd=folder)
    run(*git, "add", "--all", "--force", cwd=folder)
    run(*git, "commit", "--quiet", "--allow-empty", "-m", "Mine", cwd=folder)
    write(folder, {"staged.txt": "staged", "uncommitted.txt": "not yet"})
    run(*git, "add", "staged.txt", cwd=folder)


def switched_off(answers: dict[str, str]) -> Callable[[str], bool]:
    """Which of the template's files aren't written with these answers, as a bake into an empty folder tells."""
    with tempfile.TemporaryDirectory() as folder:
        cookiecutter(Path(folder), {**answers, "install": "no", "init_git": "no"}, check=True)
        written = {
            str(path.relative_to(f"{folder}/agent-api")) for path in Path(folder).rglob("*") if path.is_file()
        }
    return lambda name: name not in written


def check_kept(before: Belongings, after: Belongings, may_be_written: Callable[[str], bool]) -> None:
    """All that was there is there as it was, but for what the user asked to be written over."""
    for name, what in before.items():
        if not may_be_written(name):
            assert name in after, f"{name} is gone"
            assert after[name] == what, f"{name} has changed"


BARE = {name: "no" for name in QUESTIONS if name.startswith("use_")}
PLACES = {"use_ecs": "no", "use_single_machine": "yes", "use_kubernetes": "yes"}


@pytest.mark.parametrize(
    ("answers", "options", "repository"),
    [
        pytest.param({}, OVER, True, id="default-overwrite-repository"),
        pytest.param(BARE, OVER, False, id="bare-overwrite"),
        pytest.param(BARE, AROUND, True, id="bare-skip-repository"),
        pytest.param(PLACES, OVER, True, id="places-overwrite-repository", marks=pytest.mark.full),
        pytest.param(PLACES, AROUND, False, id="places-skip", marks=pytest.mark.full),
        pytest.param({}, AROUND, False, id="default-skip", marks=pytest.mark.full),
    ],
)
def test_a_bake_over_a_folder_removes_only_what_it_has_written(
    tmp_path: Path, answers: dict[str, str], options: tuple[str, ...], repository: bool
) -> None:
    folder = tmp_path / "agent-api"
    write(folder, EVERYTHING)
    (folder / "infra/empty").mkdir()
    (folder / "infra/link").symlink_to("/nowhere")
    (folder / "scripts/entrypoint.sh").chmod(0o700)
    if repository:
        make_repository(folder)
    before = look(folder)
    outcome = cookiecutter(tmp_path, {**answers, "install": "no"}, options=options)
    assert outcome.code == 0, outcome.output
    after = look(folder)
    off = switched_off(answers)
    wanted = TEMPLATE_FILES if options == OVER else frozenset()
    check_kept(before, after, lambda name: name in wanted and not off(name))
    # The user has a .cruft.json that isn't ours.
    for name in set(after) - set(before) - {"chassis/.cruft.json"}:
        assert name in TEMPLATE_FILES or (folder / name).is_dir() or below(after, ".git").get(name), name
        assert not off(name) or (folder / name).is_dir() or name.startswith(".git/"), (
            f"{name} is switched off"
        )
    if options == OVER:
        assert "mine" not in Workspace(folder).read("README.md")
    assert ".bake" not in after
    if repository:
        assert below(after, ".git") == below(before, ".git"), "the user's repository was written to"
        assert "Nothing is committed, the repository is yours" in outcome.output
    else:
        tracked = set(run("git", "ls-files", "-z", cwd=folder).output.split("\0"))
        assert not tracked & set(MINE), "the user's files were committed"


def test_cookiecutter_copies_no_whole_folder_of_the_template() -> None:
    """It removes such a folder first, with all that is the user's in it: `_copy_without_render` names files only."""
    from cookiecutter.generate import is_copy_only_path

    folders = {parent for name in TEMPLATE_FILES for parent in map(str, Path(name).parents)} - {"."}
    context = {"cookiecutter": QUESTIONS}
    assert [folder for folder in sorted(folders) if is_copy_only_path(folder, context)] == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder, elsewhere: (folder / "infra").symlink_to(elsewhere), "infra is a link"),
        (
            lambda folder, elsewhere: (folder / "README.md").symlink_to(elsewhere / "mine"),
            "README.md is a link",
        ),
        (lambda folder, elsewhere: (folder / "uv.lock").symlink_to(elsewhere / "mine"), "uv.lock is a link"),
        (lambda folder, elsewhere: (folder / ".venv").symlink_to(elsewhere), ".venv is a link"),
        (lambda folder, _: (folder / "chassis").write_text("mine"), "chassis is a file"),
        (lambda folder, _: (folder / "Dockerfile").mkdir(), "Dockerfile is a folder"),
        (lambda folder, _: (folder / ".bake").mkdir(), "Another bake is at work in"),
    ],
    ids=["linked-folder", "linked-file", "linked-lock", "linked-venv", "file", "folder", "cut-off-bake"],
)
def test_what_would_write_elsewhere_or_break_half_way_is_refused(
    tmp_path: Path, make: Callable[[Path, Path], object], says: str
) -> None:
    folder, elsewhere = tmp_path / "output/agent-api", tmp_path / "elsewhere"
    write(folder, {"pyproject.toml": "mine"})
    write(elsewhere, {"mine": "mine"})
    make(folder, elsewhere)
    before = look(tmp_path)
    outcome = cookiecutter(tmp_path / "output", {"install": "no"}, options=OVER)
    assert outcome.code != 0
    assert says in outcome.output
    assert look(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "line"),
    [("install-fails", "uvicorn>=999999"), ("rendering-fails", None)],
)
def test_a_bake_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, name: str, line: str | None) -> None:
    """In a step, and where Cookiecutter itself breaks off, so that no hook runs any more."""
    template = copy_of_template(tmp_path / "template")
    inside = template / "{{cookiecutter.project_slug}}"
    if line:
        text = (inside / "pyproject.toml").read_text()
        (inside / "pyproject.toml").write_text(text.replace('"uvicorn>=', f'"{line}", "uvicorn>='))
    else:
        (inside / "zzz.txt").write_text("{{ 1 / 0 }}")
    folder = tmp_path / "output/agent-api"
    write(folder, EVERYTHING)
    make_repository(folder)
    before = look(folder)
    outcome = cookiecutter(tmp_path / "output", template=template, options=OVER)
    assert outcome.code != 0
    assert look(folder) == before
    if line:
        assert "The folder is again what it was before." in outcome.output


@pytest.mark.full
def test_an_installed_workspace_can_be_baked_over(installed: Workspace, tmp_path: Path) -> None:
    """Its packages are brought up to date; what was installed besides stays; a failure puts all of it back."""
    folder = tmp_path / "output/agent-api"
    shutil.copytree(installed.path, folder, symlinks=True)
    write(folder, {".venv/mine.txt": "mine", "infra/state": "mine"})
    before = look(folder)
    template = copy_of_template(tmp_path / "template")
    tables = template / "{{cookiecutter.project_slug}}/chassis/runs/tables.py"
    text = tables.read_text()
    tables.write_text(text.replace("import uuid\n", "import uuid\nimport spoiled\n"))
    outcome = cookiecutter(tmp_path / "output", template=template, options=OVER)
    assert outcome.code == 1
    assert look(folder) == before
    tables.write_text(text)
    outcome = cookiecutter(tmp_path / "output", template=template, options=OVER)
    assert outcome.code == 0, outcome.output
    after = look(folder)
    for name in (".venv/mine.txt", "infra/state"):
        assert after[name] == before[name]
    assert below(after, ".git") == below(before, ".git")


# ── interrupted ──

ANSWERS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(["yes", "no"]) for name in QUESTIONS if name.startswith("use_")}
)
LYING_THERE = st.sets(st.sampled_from(sorted(EVERYTHING)), max_size=8)
SIGNALS = st.lists(
    st.tuples(
        st.floats(0, 1.5),
        st.sampled_from(["SIGINT", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"]),
        st.sampled_from(["group", "cookiecutter"]),
    ),
    max_size=3,
)


def interrupt(process: "subprocess.Popen[str]", signals: list[tuple[float, str, str]]) -> str:
    """Send the signals, each so many seconds after the start, and wait for the end of it all."""
    began = time.monotonic()
    for seconds, name, to in sorted(signals):
        time.sleep(max(0, began + seconds - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if to == "group" else os.kill)(process.pid, getattr(signal, name))
    output, _ = process.communicate(timeout=120)
    return output


def is_of_others(path: Path) -> bool:
    """Whether it is left by something that was killed before it called anything of the template's.

    Cookiecutter makes an empty file for a hook, and Python finds out whether it may write to the temporary folder
    by a file with eight characters for a name and these four in it (`tempfile._get_default_tempdir`).
    """
    if not path.is_file():
        return False
    empty = not path.stat().st_size
    return (path.suffix == ".py" and empty) or (
        len(path.name) == 8 and (empty or path.read_bytes() == b"blat")
    )


def check_situation(
    answers: dict[str, str],
    lying: set[str],
    repository: bool,
    around: bool,
    signals: list[tuple[float, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        output, temporary = Path(place, "output"), Path(place, "temporary")
        output.mkdir()
        temporary.mkdir()
        folder = output / "agent-api"
        if lying:
            write(folder, {name: (EVERYTHING)[name] for name in lying})
            if repository:
                make_repository(folder)
        before = look(output)
        options = ("--overwrite-if-exists", *(["--skip-if-file-exists"] if around else []))
        pairs = [f"{name}={value}" for name, value in answers.items()]
        process = start_bake(output, "install=no", *pairs, options=options, temporary=temporary)
        printed = interrupt(process, signals)
        # A guard may only just begin when Cookiecutter is already gone.
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: not list(folder.glob(".bake*")) and ("Written:" in printed or look(output) == before)
            )
        after = look(output)
        left = [path for path in temporary.iterdir() if not is_of_others(path)]
        assert left == [], printed
        if not signals:
            assert process.returncode == 0, printed
        if process.returncode != 0 and after == before:
            return
        # It was through with it before the signal came.
        assert (folder / "pyproject.toml").exists(), printed
        assert "Interrupted" not in printed
        off = switched_off(answers)
        check_kept(
            below(before, "agent-api"),
            after,
            lambda name: (
                not around
                and name.removeprefix("agent-api/") in TEMPLATE_FILES
                and not off(name.removeprefix("agent-api/"))
            ),
        )
        if not lying:
            assert (
                run("git", "log", "--format=%s", cwd=folder).output == "Start from cookiecutter-agent-api\n"
            )
            assert run("git", "status", "--porcelain", cwd=folder).output == ""
        elif repository:
            assert below(after, "agent-api/.git") == below(before, "agent-api/.git")


def situations(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        given_all = given(
            answers=ANSWERS,
            lying=LYING_THERE,
            repository=st.booleans(),
            around=st.booleans(),
            signals=SIGNALS,
        )
        how = settings(
            max_examples=number,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return how(given_all(test))

    return decorate


@situations(6)
def test_some_situations(
    answers: dict[str, str],
    lying: set[str],
    repository: bool,
    around: bool,
    signals: list[tuple[float, str, str]],
) -> None:
    check_situation(answers, lying, repository, around, signals)


@pytest.mark.full
@situations(int(os.environ.get("SITUATIONS", "80")))
def test_many_situations(
    answers: dict[str, str],
    lying: set[str],
    repository: bool,
    around: bool,
    signals: list[tuple[float, str, str]],
) -> None:
    check_situation(answers, lying, repository, around, signals)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """With a short name, as most are: a socket of PostgreSQL's fits in."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    ("line", "seconds", "signals", "to"),
    [
        ("... Install", 0.2, ["SIGHUP"], "group"),
        ("... Install", 0.2, ["SIGINT"], "cookiecutter"),
        ("... Verify", 0.7, ["SIGINT", "SIGINT"], "group"),
        ("... Verify", 1.2, ["SIGHUP"], "group"),
        ("... Verify", 0.7, ["SIGTERM"], "cookiecutter"),
        ("... Verify", 1.4, ["SIGKILL"], "cookiecutter"),
        ("... Verify", 1.4, ["SIGKILL"], "group"),
    ],
)
def test_interrupted_in_a_step_leaves_nothing(
    tmp_path: Path, temporary: Path, line: str, seconds: float, signals: list[str], to: str
) -> None:
    """No half folder, no temporary folder, no process, PostgreSQL's least of all."""
    template = copy_of_template(tmp_path / "template")
    (revision,) = template.glob("*/db/migrations/versions/*_tables_of_the_chassis.py")
    text = revision.read_text()
    slow = text.replace(
        '    """Apply the revision."""\n', '    """Apply the revision."""\n    __import__("time").sleep(3)\n'
    )
    revision.write_text(slow)
    output = tmp_path / "output"
    output.mkdir()
    process = start_bake(output, template=template, temporary=temporary)
    assert process.stdout is not None
    for printed in process.stdout:
        if printed.startswith(line):
            break
    time.sleep(seconds)
    for name in signals:
        (os.killpg if to == "group" else os.kill)(process.pid, getattr(signal, name))
        time.sleep(0.3)
    process.communicate(timeout=60)
    assert process.returncode != 0

    def left() -> list[str]:
        found = []
        for one in psutil.process_iter(["cmdline", "status"]):
            words = " ".join(one.info["cmdline"] or [])
            if (str(tmp_path) in words or str(temporary) in words) and one.info[
                "status"
            ] != psutil.STATUS_ZOMBIE:
                found.append(words)
        return found

    wait_until(lambda: list(output.iterdir()) == [] and left() == [])
    wait_until(lambda: [path for path in temporary.iterdir() if path.suffix != ".lock"] == [])


@pytest.mark.full
def test_a_second_bake_of_the_same_folder_waits_for_nobody(tmp_path: Path) -> None:
    """It is refused while the first is at work, and the first goes on."""
    first = start_bake(tmp_path, options=("--overwrite-if-exists",))
    assert first.stdout is not None
    for printed in first.stdout:
        if printed.startswith("... Install"):
            break
    second = cookiecutter(tmp_path, {"install": "no"}, options=OVER)
    assert second.code != 0
    assert "Another bake is at work" in second.output
    printed, _ = first.communicate(timeout=120)
    assert first.returncode == 0, printed
    assert (tmp_path / "agent-api/.git").exists()


def test_as_a_library_in_a_process_that_lives_on(tmp_path: Path) -> None:
    """As pytest-cookies does: a guard ends with its bake."""
    script = f"""
import psutil, time
from cookiecutter.main import cookiecutter
for number in range(3):
    cookiecutter({str(ROOT)!r}, no_input=True, output_dir={str(tmp_path)!r},
                 extra_context={{"install": False, "project_slug": f"agent-{{number}}"}})
time.sleep(1)
alive = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
assert alive == [], alive
"""
    run(sys.executable, "-c", script, cwd=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
