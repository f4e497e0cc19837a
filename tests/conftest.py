"""What the tests share: a clean environment, baked workspaces, and ways to run what is in them."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# What only some modules share, too much for this one.
pytest_plugins = ["tests.cloud", "tests.places"]

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE_FOLDER = "{{cookiecutter.project_slug}}"
TOOLS = Path(sys.executable).parent
UV = TOOLS / "uv"
QUESTIONS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

# What a test may know of the machine: how to reach the package index, and nothing of the user.
KEPT = (
    "PATH",
    "LANG",
    "TMPDIR",
    "UV_",
    "PIP_",
    "SSL_",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_",
)

# Answers that ask as much of escaping as a person's may.
ODD_ANSWERS = (
    {
        "project_name": 'Zoë’s "Best" Agent: 100% {safe} \\ API',
        "project_slug": "zoes-best-agent-api",
        "description": "Fills {{ braces }}, runs `ls $HOME` & \\n, 100% #1: 'quoted' \"twice\".",
        "author": 'O\'Brien & "Söhne" GmbH',
        "email": "zoe.o+agents@api.example.co.uk",
    },
    {
        "project_name": "- [x] *Agent* <b>&amp;</b> | ~API~ _2_ #!",
        "project_slug": "x2-agent",
        "description": "# It's {% odd %} {# too #}: [link](x) \\t \\u0041 ${HOME} $(id) %(here)s 日本 😀",
        "author": "`backtick` \\ $USER {0} : - ? ! @ % 'x",
        "email": "a@b.example",
    },
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str


def run(
    *command: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str | None] | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 300,
) -> Outcome:
    """Run a command and return its exit code and all it printed.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        env: variables to set, or with None to take away, in the tests' own clean environment.
        stdin: what it reads; nothing, unless given.
        check: whether to fail the test where the command fails.
        timeout: in seconds, after which the test fails.
    """
    variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=variables,
        input=stdin or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    outcome = Outcome(done.returncode, done.stdout)
    if check:
        assert outcome.code == 0, f"{' '.join(map(str, command))} failed:\n{outcome.output}"
    return outcome


@dataclass(frozen=True)
class Workspace:
    """A baked workspace."""

    path: Path

    def has_file(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def files(self) -> list[Path]:
        """Every file that the template wrote, without what installing and git added."""
        added = {
            ".venv",
            ".git",
            ".postgres",
            "uv.lock",
            "__pycache__",
            ".hypothesis",
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
        }
        return sorted(
            path
            for path in self.path.rglob("*")
            if path.is_file()
            and added.isdisjoint(path.relative_to(self.path).parts)
            and path.suffix != ".pyc"
        )

    def run(self, program: str, *arguments: str | Path, **options: Any) -> Outcome:
        """Run a program of the workspace's own environment, or else one on PATH, in its folder."""
        own = self.path / ".venv/bin" / program
        return run(own if own.exists() else program, *arguments, **{"cwd": self.path, **options})

    def alembic(self, *arguments: str, **options: Any) -> Outcome:
        return self.run("alembic", "-c", "db/alembic.ini", *arguments, **options)


def raw(value: str) -> str:
    """Quote a value so that Cookiecutter, which renders `key=value`, leaves it as it is."""
    return "{% raw %}" + value + "{% endraw %}" if "{" in value else value


def cookiecutter(
    output: Path,
    answers: Mapping[str, str] | None = None,
    *,
    template: Path = ROOT,
    options: tuple[str, ...] = ("--no-input",),
    **how: Any,
) -> Outcome:
    """Run Cookiecutter's command, as a user does; `answers` are given as key=value."""
    pairs = [f"{name}={raw(value)}" for name, value in (answers or {}).items()]
    return run(
        sys.executable,
        "-m",
        "cookiecutter",
        *options,
        "-o",
        output,
        template,
        *pairs,
        **{"check": False, **how},
    )


def at_terminal(
    command: Sequence[str],
    answers: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Outcome:
    """Run a command at a terminal and type one answer at each prompt; an empty one takes the default."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "500", **(env or {})},
        start_new_session=True,
    )
    os.close(theirs)
    waiting = list(answers)
    seen, unanswered, until = "", "", time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # Linux: the other end is closed
                    piece = os.read(ours, 65536).decode("utf-8", "replace")
                    seen += piece
                    unanswered += piece
                    if waiting and re.search(r"\)\S*: \S*$", unanswered):
                        os.write(ours, (waiting.pop(0) + "\n").encode())
                        unanswered = ""
                    continue
            if process.poll() is not None:
                break
        else:
            raise AssertionError(f"no end after {seconds} s: {seen}")
    finally:
        process.kill()
        code = process.wait()
        os.close(ours)
    assert not waiting or code != 0, f"not asked for: {waiting}\n{seen}"
    return Outcome(code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).replace("\r\n", "\n"))


def copy_of_template(target: Path) -> Path:
    """Copy the template, without what tools keep in its folder, for a test to change."""
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "uv.lock", "__pycache__", ".*_cache")
    return Path(shutil.copytree(ROOT, target, ignore=unwanted))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep out of pytest's usual folder, which each pytest that starts, a workspace's too, closes to others.

    As root, the embedded PostgreSQL runs as a user of its own, who must be able to reach its data.
    """
    if not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix="template-tests-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove what the tests wrote, unless there is something to look into."""
    folder = Path(session.config.option.basetemp)
    if exitstatus == 0 and folder.name.startswith("template-tests-"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take everything of the user's away from the tests, and their writing away from the user's home."""
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n", encoding="utf-8"
    )
    before = dict(os.environ)
    kept = {name: value for name, value in before.items() if name.upper().startswith(KEPT)}
    pip_cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    os.environ.clear()
    os.environ.update(
        {"LANG": "C.UTF-8", "UV_SYSTEM_CERTS": "true"}
        | kept
        | {"HOME": str(home), "UV": str(UV), "UV_CACHE_DIR": cache, "TERM": "dumb", "NO_COLOR": "1"}
        # What takes minutes of computing and changes no outcome: mypy knows a package by its contents, so all
        # workspaces share what it has read; and Python compiles what it imports, so pip needn't compile everything.
        | {"MYPY_CACHE_DIR": str(tmp_path_factory.mktemp("mypy")), "PIP_COMPILE": "false"}
        | ({"PIP_CACHE_DIR": pip_cache} if pip_cache else {})
    )
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def bake(cookies_session: Any) -> Callable[..., Workspace]:
    """Bake with the given answers, by default without installing and without git."""

    def bake(**answers: Any) -> Workspace:
        result = cookies_session.bake(
            extra_context={"install": False, "init_git": False} | answers, template=str(ROOT)
        )
        assert result.exception is None, repr(result.exception)
        return Workspace(result.project_path)

    return bake


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace of the default answers, installed and verified. Shared: no test changes it."""
    output = tmp_path_factory.mktemp("installed")
    outcome = cookiecutter(output)
    assert outcome.code == 0, outcome.output
    return Workspace(output / "agent-api")


@pytest.fixture
def workspace(installed: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of one's own, for a test to change. It shares the installed packages with the others."""
    unwanted = shutil.ignore_patterns(".venv", ".git", ".postgres")
    own = Path(shutil.copytree(installed.path, tmp_path / "agent-api", ignore=unwanted))
    (own / ".venv").symlink_to(installed.path / ".venv")
    return Workspace(own)


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a newcomer's terminal: uv is on PATH, what the template's tests use isn't."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").symlink_to(shutil.which(UV) or UV)
    path = [str(programs), *(part for part in os.environ["PATH"].split(os.pathsep) if part != str(UV.parent))]
    return {**os.environ, "PATH": os.pathsep.join(path)}
