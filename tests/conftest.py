"""What the tests share: a clean environment, and baked workspaces."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.support")

from tests.support.commands import ROOT, UV, run  # noqa: E402
from tests.support.once import Once  # noqa: E402
from tests.support.workspaces import Workspace, cookiecutter  # noqa: E402

# What only some modules share, too much for this one.
pytest_plugins = ["tests.support.cloud", "tests.support.places", "tests.support.releases"]

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
# Node.js trusts authorities of its own, unless it is told of the machine's.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep out of pytest's usual folder, which each pytest that starts, a workspace's too, closes to others.

    As root, the embedded PostgreSQL runs as a user of its own, who must be able to reach its data.
    """
    if not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix="template-tests-")
    # A script's background job ignores Ctrl-C, and so would all that the tests start and then interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: at the end, one process would have nothing to do beside it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove what the tests wrote, unless there is something to look into."""
    folder = Path(session.config.option.basetemp)
    if exitstatus == 0 and folder.name.startswith("template-tests-"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take everything of the user's away from the tests, and their writing away from the user's home.

    What only saves time stays where it is: the packages that uv, pip and npm have downloaded. What mypy knows of them
    is kept for a process of one run only: it knows a package by its contents, so all workspaces share it, but a mypy
    that was killed, or another beside it, may leave what none after it can read.
    """
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n", encoding="utf-8"
    )
    before = dict(os.environ)
    kept = {name: value for name, value in before.items() if name.upper().startswith(KEPT)}
    caches = {
        "UV_CACHE_DIR": _printed(UV, "cache", "dir"),
        "PIP_CACHE_DIR": _printed(sys.executable, "-m", "pip", "cache", "dir"),
        "NPM_CONFIG_CACHE": str(Path.home() / ".npm"),
        "MYPY_CACHE_DIR": str(tmp_path_factory.mktemp("mypy")),
    }
    os.environ.clear()
    os.environ.update(
        {"LANG": "C.UTF-8", "UV_SYSTEM_CERTS": "true"}
        | ({"NODE_EXTRA_CA_CERTS": str(CERTIFICATES)} if CERTIFICATES.exists() else {})
        | caches
        | kept
        | {"HOME": str(home), "UV": str(UV), "TERM": "dumb", "NO_COLOR": "1"}
        # Python compiles what it imports, so pip needn't compile everything.
        | {"PIP_COMPILE": "false"}
    )
    yield
    os.environ.clear()
    os.environ.update(before)


def _printed(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Once:
    """What the processes that run tests side by side share, each made by the first that needs it."""
    folder = tmp_path_factory.getbasetemp()
    return Once(folder.parent if hasattr(request.config, "workerinput") else folder)


@pytest.fixture(scope="session")
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
def installed(once: Once) -> Workspace:
    """The workspace of the default answers, installed and verified. Shared: no test changes it."""

    def make(folder: Path) -> None:
        outcome = cookiecutter(folder)
        assert outcome.code == 0, outcome.output
        # Which each copy would otherwise do again. The cache is no part of the workspace, for git neither.
        run(
            folder / "agent-api/.venv/bin/python",
            "-m",
            "compileall",
            "-q",
            "agents",
            "api",
            "chassis",
            "db",
            cwd=folder / "agent-api",
        )

    return Workspace(once.folder("installed", make) / "agent-api")


@pytest.fixture(scope="session")
def without_knowledge(once: Once, installed: Workspace) -> Workspace:
    """One without the knowledge agent, for Debian's server, which has no pgvector. It shares the packages."""

    def make(folder: Path) -> None:
        outcome = cookiecutter(folder, {"use_knowledge": "no", "init_git": "no", "install": "no"})
        assert outcome.code == 0, outcome.output
        (folder / "agent-api/.venv").symlink_to(installed.path / ".venv")

    return Workspace(once.folder("without-knowledge", make) / "agent-api")


@pytest.fixture
def workspace(installed: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of one's own, for a test to change. It shares the installed packages with the others."""
    return installed.copy(tmp_path / "agent-api")


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a newcomer's terminal: uv is on PATH, what the template's tests use isn't."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").symlink_to(shutil.which(UV) or UV)
    path = [str(programs), *(part for part in os.environ["PATH"].split(os.pathsep) if part != str(UV.parent))]
    return {**os.environ, "PATH": os.pathsep.join(path)}
