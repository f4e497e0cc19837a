"""On machines as they come: without uv, without anything but Python, git and make, as another user."""

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT, UV, Outcome, at_terminal, run
from tests.support.workspaces import QUESTIONS, Workspace, cookiecutter, copy_of_template

# What a bare machine doesn't have, or not as we want it.
NOT_THERE = re.compile(r"(python|pip|pydoc|uv|cookiecutter|cruft|pg_|psql).*")


def machine(folder: Path, *, python: Path | str | None = None) -> dict[str, str | None]:
    """An environment with nothing in it: a home, and a PATH with git, make, a shell, and Python if given.

    Only where packages are kept after a download is as in the other tests, so that it isn't done again, and how.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "home").mkdir()
    system = [path for place in ("/usr/bin", "/usr/sbin") for path in Path(place).iterdir()]
    for path in [*system, *(Path(shutil.which(name) or "missing") for name in ("git", "make"))]:
        link = folder / "bin" / path.name
        if not NOT_THERE.fullmatch(path.name) and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    if python:
        (folder / "bin" / "python3").symlink_to(python)
    kept = {"UV_CACHE_DIR", "PIP_CACHE_DIR", "PIP_COMPILE"}
    nothing: dict[str, str | None] = {name: None for name in os.environ if name not in kept}
    return nothing | {"PATH": str(folder / "bin"), "HOME": str(folder / "home")}


def base_python() -> Path:
    """The Python that is under the environment in which the tests run."""
    return Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")


def next_steps(output: str) -> list[str]:
    """The commands that the hook prints at its end, apart from the one that serves."""
    _, done, after = (
        output.rpartition("\nDone in") if "\nDone in" in output else output.rpartition("\nWritten:")
    )
    assert done, output
    steps = re.findall(r"^  (\S.*)$", after, re.MULTILINE)
    assert steps[0].startswith("cd ")
    assert "uvicorn api.main:app" in steps[-1]
    return steps[:-1]


@pytest.mark.full
def test_make_new_and_make_test_in_a_fresh_copy(tmp_path: Path) -> None:
    """With the defaults, no terminal, and spaces in the path. The inner test run is a part of all tests."""
    environment = machine(tmp_path / "machine", python=base_python())
    template = copy_of_template(tmp_path / "a fresh copy")
    outcome = run("make", "new", cwd=template, env=environment)
    workspace = Workspace(tmp_path / "agent-api")
    assert str(workspace.path) in outcome.output, "it isn't said where the workspace lies"
    assert "has migrated a real PostgreSQL up, down and up again" in outcome.output

    # What is printed as the next step works in the very shell that make was called from.
    steps = next_steps(outcome.output)
    run("bash", "-ec", "\n".join(steps), cwd=tmp_path, env=environment)
    assert "(head)" in workspace.alembic("current", env=environment).output

    again = run("make", "new", cwd=template, env=environment, check=False)
    assert again.code != 0
    assert "already exists" in again.output

    options = "PYTEST_ARGS=tests/bake/test_answers.py -k 'derived or email'"
    inner = run("make", "test", options, cwd=template, env=environment, timeout=600)
    assert re.search(r"^\d+ passed", inner.output, re.MULTILINE), inner.output
    changed = run("git", "init", "-q", cwd=template, env=environment) and run(
        "git", "status", "--porcelain", "--untracked-files=all", cwd=template, env=environment
    )
    assert not re.search(r"\.venv|cache|uv\.lock", changed.output), "git would see what make has installed"


@pytest.mark.full
def test_make_new_takes_answers_and_a_folder(tmp_path: Path) -> None:
    environment = machine(tmp_path / "machine", python=base_python())
    template = copy_of_template(tmp_path / "template")
    answers = "ARGS=install=no init_git=no project_slug=support description='$HOME \"x\" #1'"
    run("make", "new", f"OUT={tmp_path}/with space/deeper", answers, cwd=template, env=environment)
    text = Workspace(tmp_path / "with space/deeper/support").read("pyproject.toml")
    assert '$HOME \\"x\\" #1' in text


def test_make_new_asks_at_a_terminal(tmp_path: Path) -> None:
    """In this very checkout, whose .venv is already there."""
    names = [name for name in QUESTIONS if not name.startswith("_")]
    typed = {"project_name": "Typed Agent", "install": "n", "init_git": "n"}
    outcome = at_terminal(["make", "new", f"OUT={tmp_path}"], [typed.get(name, "") for name in names])
    assert outcome.code == 0, outcome.output
    assert Workspace(tmp_path / "typed-agent").has_file("db/alembic.ini")


def test_make_without_a_target_tells_what_there_is(tmp_path: Path) -> None:
    outcome = run("make", cwd=copy_of_template(tmp_path / "template"), env=machine(tmp_path / "machine"))
    for target in ("new", "test", "lint", "bench"):
        assert f"make {target} " in outcome.output


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (None, "No Python 3.11 or newer was found"),
        ("exit 1", "No Python 3.11 or newer was found"),
        (
            'case "$*" in *ensurepip*) exit 1 ;; *) exec {python} "$@" ;; esac',
            "apt install python{version}-venv",
        ),
    ],
    ids=["missing", "old", "without-venv"],
)
def test_make_says_what_is_missing(tmp_path: Path, python: str | None, says: str) -> None:
    environment = machine(tmp_path / "machine")
    if python:
        script = tmp_path / "machine/bin/python3"
        script.write_text(f"#!/bin/sh\n{python.format(python=base_python())}\n", encoding="utf-8")
        script.chmod(0o755)
    template = copy_of_template(tmp_path / "template")
    outcome = run("make", "new", cwd=template, env=environment, check=False)
    assert outcome.code != 0
    assert says.format(version=f"{sys.version_info.major}.{sys.version_info.minor}") in outcome.output
    assert len(outcome.output.splitlines()) <= 3, outcome.output
    assert not (template / ".venv").exists()


@pytest.fixture
def without_uv(tmp_path: Path) -> dict[str, str | None]:
    """A machine on which Cookiecutter is installed, with pip's help, and uv is not."""
    environment = machine(tmp_path / "machine", python=base_python())
    place = tmp_path / "machine/cookiecutter"
    run(UV, "venv", "--quiet", "--python", base_python(), place)
    run(UV, "pip", "install", "--quiet", "--python", place, "cookiecutter")
    assert not (place / "bin/uv").exists()
    (tmp_path / "machine/bin/cookiecutter").symlink_to(place / "bin/cookiecutter")
    # The uv that is installed in the end is to trust what pip here trusts already.
    return {**environment, "UV": None, "UV_SYSTEM_CERTS": "true"}


def bake_with(environment: dict[str, str | None], output: Path, *arguments: str) -> Outcome:
    program = Path(str(environment["PATH"])) / "cookiecutter"
    return run(
        program, "--no-input", "-o", output, ROOT, *arguments, env=environment, check=False, timeout=600
    )


@pytest.mark.full
def test_without_uv_venv_and_pip_do(tmp_path: Path, without_uv: dict[str, str | None]) -> None:
    outcome = bake_with(without_uv, tmp_path)
    assert outcome.code == 0, outcome.output
    assert "ok  Install the packages with pip" in outcome.output
    assert "has migrated a real PostgreSQL up, down and up again" in outcome.output
    assert not any(step.startswith("uv ") for step in next_steps(outcome.output))
    run("bash", "-ec", "\n".join(next_steps(outcome.output)), cwd=tmp_path, env=without_uv)


@pytest.mark.full
def test_without_uv_what_was_not_installed_can_be_later(
    tmp_path: Path, without_uv: dict[str, str | None]
) -> None:
    outcome = bake_with(without_uv, tmp_path, "install=no")
    assert outcome.code == 0, outcome.output
    run("bash", "-ec", "\n".join(next_steps(outcome.output)), cwd=tmp_path, env=without_uv, timeout=600)


@pytest.mark.full
def test_without_uv_another_python_than_there_is_fails_plainly(
    tmp_path: Path, without_uv: dict[str, str | None]
) -> None:
    other = "3.14" if sys.version_info[:2] != (3, 14) else "3.13"
    output = tmp_path / "output"
    output.mkdir()
    outcome = bake_with(without_uv, output, f"python_version={other}")
    assert outcome.code == 1
    assert f"There is no Python {other} here, and no uv that could fetch it" in outcome.output
    assert list(output.iterdir()) == []


@pytest.fixture
def nobody() -> Iterator[tuple[pwd.struct_passwd, Path]]:
    """An ordinary user with a home, for tests that run as root."""
    user = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="ordinary-user-", dir="/tmp"))
    home.chmod(0o755)
    yield user, home
    shutil.rmtree(home)


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests already run as an ordinary user")
def test_as_an_ordinary_user(nobody: tuple[pwd.struct_passwd, Path]) -> None:
    """`make new`, what it says is next, and the workspace's tests, by a user who owns nothing else here."""
    user, home = nobody
    # The lock of another user, root, is in the way.
    lock = Path("/tmp/.lockfile")
    lock.touch()
    os.chown(lock, 0, 0)

    def as_user(*command: str, cwd: Path) -> Outcome:
        done = subprocess.run(
            command,
            cwd=cwd,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"},
            check=False,
            timeout=600,
        )
        return Outcome(done.returncode, done.stdout)

    template = copy_of_template(home / "template")
    for path in [home, *home.rglob("*")]:
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    made = as_user("make", "new", cwd=template)
    assert made.code == 0, made.output
    assert "has migrated a real PostgreSQL up, down and up again" in made.output
    for command in (
        "\n".join(next_steps(made.output)),
        "cd agent-api && .venv/bin/alembic -c db/alembic.ini check && .venv/bin/pytest tests chassis/tests/test_entrypoint.py",
    ):
        outcome = as_user("bash", "-ec", command, cwd=home)
        assert outcome.code == 0, outcome.output
    assert shlex.quote(str(home / "agent-api")) in made.output
    owners = {path.lstat().st_uid for path in (home / "agent-api").rglob("*")}
    assert owners == {user.pw_uid}


@pytest.mark.full
def test_a_bake_with_the_command_itself_needs_no_uv_variable(tmp_path: Path) -> None:
    """As with `pipx run cookiecutter` where uv is on PATH."""
    environment = {"UV": None, "PATH": f"{UV.parent}{os.pathsep}{os.environ['PATH']}"}
    outcome = cookiecutter(tmp_path, {"init_git": "no"}, env=environment)
    assert outcome.code == 0, outcome.output
    assert "ok  Install the packages with uv" in outcome.output
    assert "uv run alembic" in outcome.output
