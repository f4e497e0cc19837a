"""Finish the workspace that Cookiecutter has just written: tidy, install, verify, start git, say what is next.

Standard library only, Python 3.10 or newer, on Linux, macOS and Windows.
"""

# ruff: noqa: E402
import os
import sys

# Cookiecutter runs this file from the temporary folder. Neither a module that happens to lie there nor
# one on the user's PYTHONPATH may stand in for the standard library's.
_OUTSIDE = [os.path.dirname(__file__), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
sys.path[:] = [path for path in sys.path if path not in _OUTSIDE]

import contextlib
import itertools
import json
import re
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

ANSWERS = json.loads({{cookiecutter | jsonify | jsonify}})
# Cookiecutter leaves the rendered hook, answers and all, in the temporary folder.
os.remove(__file__)

WORKSPACE = Path.cwd()
BIN = "Scripts" if os.name == "nt" else "bin"
TERMINAL = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

# The one place where answers remove files: answer that was "no" -> what goes.
REMOVED = {
    "use_knowledge": [
        "agents/knowledge",
        "db/tables/knowledge.py",
        "db/migrations/versions/2026_11_24_1600-62affef7ba65_knowledge.py",
        "tests/test_knowledge.py",
    ],
    "use_chat_page": ["api/chat", "api/routes/chat.py", "tests/test_chat_page.py"],
    "use_openai_api": ["api/routes/openai.py", "tests/test_openai_api.py"],
    "use_ag_ui": ["api/routes/ag_ui.py", "tests/test_ag_ui.py"],
    "use_ecs": ["infra", ".github/workflows/deliver.yml"],
    "use_single_machine": ["deploy/compose"],
    "use_kubernetes": ["deploy/kubernetes"],
    "use_github_actions": [".github", "infra/delivery.yaml"],
}
EXISTED = Path(".existed-before")

# Nothing of the user's shell may lead an install or the verification to another Python, another
# project or, worst of all, another database.
FOREIGN = re.compile(
    r"PYTHON.*|VIRTUAL_ENV.*|CONDA_.*|PG.*|DB_.*|DATABASE_URL|RUNTIME_ENV|MIGRATE_.*|WAIT_FOR_.*|ALEMBIC_.*"
    r"|UV_(PROJECT.*|PYTHON|WORKING_DIR.*|ENV_FILE|NO_SYNC|NO_DEV|NO_GROUP|FROZEN|LOCKED)"
    r"|GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|PREFIX|OBJECT_DIRECTORY)"
)
ENVIRONMENT = {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}
ENVIRONMENT |= {"PYTHONUTF8": "1", "NO_COLOR": "1"}

PIP_INSTALL = """
import subprocess, sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *wanted]))
"""


class StepFailed(Exception):
    """A step didn't succeed. Holds its title, the command to repeat it, and what it printed."""


def main() -> int:
    """Run the steps that the answers ask for and return the exit code."""
    began = time.monotonic()
    fresh = not EXISTED.exists()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        remove_switched_off()
        if rendered_by_update_tool():
            return 0
        uv = find_uv()
        if ANSWERS["install"]:
            install(uv)
            run(
                "Verify the migrations on PostgreSQL",
                [venv_python(), "-m", "db.verify"],
                by_hand("python -m db.verify"),
            )
            for cache in Path("db").rglob("__pycache__"):
                shutil.rmtree(cache)
        if ANSWERS["init_git"]:
            start_git()
    except StepFailed as failure:
        report(failure)
        return 1
    except KeyboardInterrupt:
        # Cookiecutter removes the folder when a hook fails, but not when it is interrupted itself.
        if fresh:
            os.chdir(WORKSPACE.parent)
            shutil.rmtree(WORKSPACE, ignore_errors=True)
        print("\nInterrupted: nothing was left behind.", file=sys.stderr)
        return 130
    say_what_is_next(uv, time.monotonic() - began)
    return 0


def remove_switched_off() -> None:
    """Remove what the answers switched off."""
    for path in [
        EXISTED,
        *(Path(path) for answer, paths in REMOVED.items() if not ANSWERS[answer] for path in paths),
    ]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # where it was the last in its folder


def rendered_by_update_tool() -> bool:
    """Whether cruft renders this for a comparison, into <temporary folder>/tmp????????/<slug>.

    `_commit` is cruft's alone; with `cruft create` the folder is one that the user chose.
    """
    if "_commit" not in ANSWERS:
        return False
    import tempfile

    parent = WORKSPACE.parent
    return parent.parent == Path(tempfile.gettempdir()).resolve() and bool(
        re.fullmatch(r"tmp\w{8}", parent.name)
    )


def find_uv() -> "str | None":
    """Return the path of uv: the one that runs us, the one on PATH, or the one beside this Python."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    return os.environ.get("UV") or shutil.which("uv") or beside


def venv_python() -> str:
    """Return the path of the workspace's own Python."""
    return str(WORKSPACE / ".venv" / BIN / "python")


def by_hand(command: str) -> str:
    """Return the command as a person in the workspace's folder would type it."""
    return f"uv run {command}" if shutil.which("uv") else f"{Path('.venv') / BIN / command}"


def uv_sync(uv: "str | None") -> str:
    """Return the command that installs the packages, whether or not uv is where the user's shell looks."""
    if shutil.which("uv"):
        return "uv sync"
    if uv:
        return f"{shlex.quote(uv)} sync"
    uv_of_its_own = f"{Path('.venv') / BIN / 'pip'} install uv && {Path('.venv') / BIN / 'uv'} sync"
    return f"{shlex.quote(sys.executable)} -m venv .venv && {uv_of_its_own}"


def install(uv: "str | None") -> None:
    """Install the packages into the workspace's .venv, with uv or, where there is none, with pip."""
    if uv:
        # Relocatable: its commands work on, wherever the workspace is moved.
        run("Make a virtual environment", [uv, "venv", "--relocatable", ".venv"], uv_sync(uv))
        run("Install the packages with uv", [uv, "sync"], uv_sync(uv))
        return
    version = ANSWERS["python_version"]
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if running == version else shutil.which(f"python{version}")
    if not python:
        raise StepFailed(
            "Install the packages",
            "uv sync",
            f"There is no Python {version} here, and no uv that could fetch it. Install one of the two, or answer {running}.",
        )
    run(
        "Make a virtual environment",
        [python, "-m", "venv", "--clear", ".venv"],
        f"python{version} -m venv .venv",
    )
    run("Install the packages with pip", [venv_python(), "-c", PIP_INSTALL], "uv sync")


def run(title: str, command: "list[str]", repeat: str) -> None:
    """Run a command of the workspace, show that it moves, and print a line with its time.

    Raises:
        StepFailed: with what the command printed, where it can't be started or doesn't succeed.
    """
    import subprocess
    import tempfile

    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise StepFailed(title, repeat, str(error)) from error
        done = threading.Event()
        wheel = threading.Thread(target=turn, args=(title, began, done), daemon=True)
        wheel.start()
        try:
            process.wait()
        except KeyboardInterrupt:
            # A terminal has sent the process the same Ctrl-C, so it may be about to end by itself.
            for end in (lambda: None, process.terminate, process.kill):
                end()
                try:
                    process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    continue
            raise
        finally:
            done.set()
            wheel.join()
        output.seek(0)
        printed = output.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise StepFailed(title, repeat, printed)
    print(f"{clear()}ok  {title} ({time.monotonic() - began:.1f} s)", flush=True)


def turn(title: str, began: float, done: threading.Event) -> None:
    """Until it is done, turn a wheel, or without a terminal say every 10 s that it goes on."""
    if not TERMINAL:
        print(f"... {title}", flush=True)
    for sign in itertools.cycle("-\\|/"):
        if done.wait(0.1 if TERMINAL else 10):
            return
        line = f"{clear()}{sign}   {title} ({time.monotonic() - began:.0f} s)"
        print(line, end="" if TERMINAL else "\n", flush=True)


def clear() -> str:
    """Return what clears the line that moves."""
    return "\r\033[K" if TERMINAL else ""


def start_git() -> None:
    """Start a repository; commit as the user where git knows who that is, else leave the files staged."""
    git = shutil.which("git")
    if git is None:
        print("--  No git repository: git isn't installed.", flush=True)
        return

    import subprocess

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [git, *arguments],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )

    if not Path(".git").exists():
        call("-c", "init.defaultBranch=main", "init", "--quiet")
    added = call("add", "--all")
    if added.returncode != 0:
        raise StepFailed("Start a git repository", "git init && git add --all", added.stderr)
    known = all(
        os.environ.get(f"GIT_AUTHOR_{part.upper()}") or call("config", f"user.{part}").stdout.strip()
        for part in ("name", "email")
    )
    if not known:
        print(
            "--  Git repository started, files staged. git doesn't know you yet, so the first commit is yours:\n"
            '    git config user.name "..." && git config user.email "..." && git commit -m "Start"',
            flush=True,
        )
        return
    committed = call("commit", "--quiet", "--message", "Start from cookiecutter-agent-api")
    if committed.returncode == 0:
        print("ok  Start a git repository with a first commit", flush=True)
    else:
        print(
            f"--  Git repository started, files staged; the commit didn't succeed: {tail(committed.stderr, 3)}",
            flush=True,
        )


def tail(printed: str, lines: int) -> str:
    """Return the last lines that say something, with passwords in addresses blotted out."""
    safe = re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1:***@", printed)
    return "\n".join([line for line in safe.splitlines() if line.strip()][-lines:])


def report(failure: StepFailed) -> None:
    """Say what failed, how to see it again, and how to come back without typing the answers again."""
    title, repeat, printed = failure.args
    again = ["cookiecutter", "--replay"]
    if not shutil.which("cookiecutter"):
        again[:0] = ["uvx"] if shutil.which("uvx") else [sys.executable, "-m"]
    where = ["--output-dir", str(WORKSPACE.parent)]
    if ANSWERS.get("_checkout"):
        where += ["--checkout", ANSWERS["_checkout"]]
    template = ANSWERS.get("_template", "")
    local = Path(os.environ.get("PWD", WORKSPACE.parent), template)
    where.append(str(local.resolve()) if local.is_dir() else template)
    print(f"{clear()}\nFAILED  {title}\n\n{tail(printed, 12)}\n", file=sys.stderr)
    print("Your answers are kept. To try again, once the cause is mended:", file=sys.stderr)
    print(f"  {shlex.join(again + where)}", file=sys.stderr)
    print("To look into it, keep the folder and repeat the step by hand:", file=sys.stderr)
    print(f"  {shlex.join([*again, '--keep-project-on-failure', *where])}", file=sys.stderr)
    print(f"  cd {shlex.quote(str(WORKSPACE))}\n  {repeat}\n", file=sys.stderr)
    print("What follows is Cookiecutter's own report that a hook failed.", file=sys.stderr, flush=True)


def say_what_is_next(uv: "str | None", seconds: float) -> None:
    """Print the next commands, right for the answers given."""
    slug = ANSWERS["project_slug"]
    key = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY"}
    if ANSWERS["install"]:
        print(f"\nDone in {seconds:.1f} s: {slug} has migrated a real PostgreSQL up, down and up again.\n")
    else:
        print(f"\nWritten: {slug}. NOT checked: no package was installed, no migration has run.\n")
    here = Path(os.environ.get("PWD", WORKSPACE))
    near = WORKSPACE.relative_to(here) if here in WORKSPACE.parents else WORKSPACE
    print(f"  cd {shlex.quote(str(near))}")
    if not ANSWERS["install"]:
        print(f"  {uv_sync(uv)}\n  {by_hand('python -m db.verify')}")
    print(f"  {by_hand('alembic -c db/alembic.ini upgrade head')}")
    print(f"  {by_hand('uvicorn api.main:app')}")
    print(f"\nA demonstration model answers until {key[ANSWERS['model_provider']]} is set.")
    print("Before you change a table, read db/README.md.", flush=True)


sys.exit(main())
