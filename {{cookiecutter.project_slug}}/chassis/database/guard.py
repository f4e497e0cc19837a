"""Who uses the embedded server, as locks that the operating system keeps, and the program that stops it after them.

A lock ends with the process that holds it, whatever ended that. Three files in the server's folder have one:
`users.lock` is shared by the processes that use the server, and owned by whoever stops it; `start.lock` is owned by
whoever starts it; `server.lock` is inherited by the server's processes, so that it is held while any of them lives.

`chassis.database.embedded` starts this file as a program too. Standard library only: it runs without the packages of
the workspace, which makes it small and quick.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

USERS, START, SERVER = "users.lock", "start.lock", "server.lock"
PATIENCE = 30  # seconds for the server to end in an orderly way

if sys.platform == "win32":
    import msvcrt

    BYTES = 1 << 20

    def lock(file: int, *, shared: bool = False, wait: bool = True) -> bool:
        """Lock one byte of the file, which leaves others theirs, or all of them."""
        while True:
            os.lseek(file, random.randrange(BYTES) if shared else 0, os.SEEK_SET)  # noqa: S311
            with suppress(OSError):
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1 if shared else BYTES)
                return True
            if not wait:
                return False
            time.sleep(0.1)

else:
    import fcntl

    def lock(file: int, *, shared: bool = False, wait: bool = True) -> bool:
        """Lock an open file, with others or alone, and return whether that was possible."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


def open_lock(folder: Path, name: str) -> int:
    """Open a file to lock it. It is locked until it is closed here and in each process that inherited it."""
    return os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)


def running(folder: Path) -> bool:
    """Whether any process of the server lives."""
    file = open_lock(folder, SERVER)
    try:
        return not lock(file, wait=False)
    finally:
        os.close(file)


def state(folder: Path) -> list[str]:
    """Return what the server writes about itself, line by line: process, data, start, port, sockets, … and status."""
    try:
        text = (folder / "data/postmaster.pid").read_bytes().decode(errors="surrogateescape")
    except OSError:
        return []
    return [line.strip() for line in text.split("\n")]


def stop_unless_used(folder: Path) -> None:
    """Stop the server if no process uses it, or wait for the one that is stopping it."""
    users, server = open_lock(folder, USERS), open_lock(folder, SERVER)
    try:
        while not lock(users, wait=False):
            if lock(users, shared=True, wait=False):
                return
            time.sleep(0.002)
        began = time.monotonic()
        while not lock(server, wait=False) and (waited := time.monotonic() - began) < 2 * PATIENCE:
            if (lines := state(folder)) and lines[0].isdecimal():
                _end(folder, int(lines[0]), at_once=waited > PATIENCE)
            time.sleep(0.01)
    finally:
        os.close(users)
        os.close(server)


def _end(folder: Path, process: int, *, at_once: bool) -> None:
    """Tell the server to end, either way without waiting for its clients."""
    if sys.platform == "win32":
        control = (folder / "control").read_text(encoding="utf-8")
        mode = "immediate" if at_once else "fast"
        subprocess.run([control, "-D", folder / "data", "-m", mode, "stop"], check=False)
    else:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGQUIT if at_once else signal.SIGINT)


def main(inherited: int, folder: Path, sockets: Path, afterwards: str, command: list[str]) -> None:
    """Run the server in the background until its last user is gone; "remove" its folder afterwards, or "keep" it."""
    if sys.platform == "win32":
        lock(open_lock(folder, SERVER))
    elif os.fork():
        os._exit(0)  # the one that goes on is no child of a user's
    users = open_lock(folder, USERS)
    server = subprocess.Popen(command, close_fds=False)
    if sys.platform != "win32":
        os.close(inherited)  # the lock is the server's alone
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a server that crashes leaves no process behind
    lock(users)
    if sys.platform == "win32" or server.poll() is None:
        _end(folder, server.pid, at_once=afterwards == "remove")
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        _end(folder, server.pid, at_once=True)
        server.wait()
    if afterwards == "remove":
        shutil.rmtree(folder, ignore_errors=True)
    if sockets != folder:
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
