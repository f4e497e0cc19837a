"""The container's entrypoint: the real script, the real server, a real database."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import IO, NamedTuple

import pytest
from sqlalchemy import URL, create_engine, inspect, text

from chassis.settings import WORKSPACE, SettingsError, read_bool

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="containers run it under Linux; Windows has no sh"
)

ENTRYPOINT = WORKSPACE / "scripts" / "entrypoint.sh"
UVICORN = ("uvicorn", "chassis.tests.app:app", "--host", "127.0.0.1")
PATIENCE = 60.0


def environment(**settings: str) -> dict[str, str]:
    """What a container has: these settings, the workspace's programs, and nothing of the caller's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "RUNTIME_ENV": "dev", **settings}


def database(url: URL) -> dict[str, str]:
    return {"DATABASE_URL": url.render_as_string(hide_password=False)}


def run(*command: str, env: Mapping[str, str], cwd: Path = WORKSPACE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENTRYPOINT, *command],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def status(port: int, path: str) -> int | None:
    """Return the status of the answer, or None where nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


class Server(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]


@contextmanager
def serving(folder: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """Start the app through the entrypoint and wait until it answers."""
    port = free_port()
    with (folder / "log").open("w+b") as log:
        # A group of its own, so that nothing stays behind where the entrypoint fails to stop the app.
        process = subprocess.Popen(
            [ENTRYPOINT, *UVICORN, "--port", str(port)], env=env, stdout=log, stderr=log, process_group=0
        )
        try:
            until = monotonic() + PATIENCE
            while status(port, "/health") is None:
                log.seek(0)
                assert process.poll() is None, log.read().decode()
                assert monotonic() < until, log.read().decode()
                sleep(0.05)
            yield Server(process, port, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def empty(new_database: Callable[[], URL]) -> URL:
    return new_database()


def test_it_migrates_an_empty_database_then_serves_and_stops_on_sigterm(empty: URL, tmp_path: Path) -> None:
    env = environment(MIGRATE_DB="True", WAIT_FOR_DB="True", **database(empty))
    with serving(tmp_path, env) as server:
        assert status(server.port, "/ready") == 200
        probe = [sys.executable, str(WORKSPACE / "scripts" / "healthcheck.py")]
        asked = env | {"UVICORN_PORT": str(server.port)}
        assert subprocess.run(probe, env=asked, check=False).returncode == 0

        server.process.send_signal(signal.SIGTERM)
        began = monotonic()
        # uvicorn shuts down in order, then ends by the signal it was sent, as the shell reads 143.
        assert server.process.wait(PATIENCE) == -signal.SIGTERM
        assert monotonic() - began < 8
        server.log.seek(0)
        assert b"Application shutdown complete" in server.log.read()

        probed = subprocess.run(probe, env=asked, capture_output=True, check=False)
        assert (probed.returncode, b"Traceback" in probed.stderr) == (1, False)


def test_it_does_not_migrate_unasked(empty: URL, tmp_path: Path) -> None:
    with serving(tmp_path, environment(MIGRATE_DB="False", **database(empty))) as server:
        assert status(server.port, "/ready") == 503


def test_it_does_not_start_the_app_after_a_failed_migration(empty: URL, tmp_path: Path) -> None:
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('ffffffffffff')"))
    started = tmp_path / "started"
    done = run("touch", str(started), env=environment(MIGRATE_DB="True", **database(empty)))
    assert done.returncode > 0
    assert not started.exists()
    assert "ffffffffffff" in done.stdout + done.stderr
    assert "entrypoint: the migration failed, so 'touch' was not started." in done.stderr.splitlines()[-1]
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_any_command_runs_in_the_workspace_wherever_it_is_called(empty: URL, tmp_path: Path) -> None:
    env = environment(MIGRATE_DB="yes", **database(empty))
    current = run("alembic", "-c", "db/alembic.ini", "current", env=env, cwd=tmp_path)
    assert (current.returncode, "(head)" in current.stdout) == (0, True)

    arguments = run("printf", "%s|", "two words", "$HOME", "", env=environment(), cwd=tmp_path)
    assert arguments.stdout == "two words|$HOME||"
    assert run("sh", "-c", "exit 7", env=environment()).returncode == 7
    assert run(env=environment()).returncode == 2


@pytest.mark.parametrize("name", ["MIGRATE_DB", "WAIT_FOR_DB"])
@pytest.mark.parametrize(
    "value",
    [
        "True",
        "true",
        "1",
        "yes",
        "ON",
        " True ",
        "False",
        "0",
        "no",
        "Off",
        "",
        " ",
        "treu",
        "2",
        "y",
        "t rue",
        "*",
    ],
)
def test_its_truth_is_that_of_the_settings(name: str, value: str, tmp_path: Path) -> None:
    """Programs that only tell that they were called stand for Alembic and the wait."""
    for program in ("alembic", "python"):
        (tmp_path / program).write_text(f"#!/bin/sh\necho {program}\n")
        (tmp_path / program).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", name: value}
    done = run("echo", "app", env=env)
    step = {"MIGRATE_DB": "alembic", "WAIT_FOR_DB": "python"}[name]
    outcome: tuple[int, str, str]
    try:
        outcome = (0, f"{step}\napp\n" if read_bool(env, name) else "app\n", "")
    except SettingsError as error:
        outcome = (2, "", f"entrypoint: {error}\n")
    assert (done.returncode, done.stdout, done.stderr) == outcome


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DB_HOST": "127.0.0.1", "DB_DATABASE": "d"}, "DB_HOST is set, but DB_USER is missing."),
        ({"RUNTIME_ENV": "prd"}, "No database is set for RUNTIME_ENV=prd."),
        ({"DATABASE_URL": "postgresql://u:p@127.0.0.1/d?nonsense=1"}, "The database settings can't be used:"),
        ({"WAIT_FOR_DB_TIMEOUT": "soon"}, "WAIT_FOR_DB_TIMEOUT must be a number of seconds, not"),
        ({"WAIT_FOR_DB_TIMEOUT": "inf"}, "WAIT_FOR_DB_TIMEOUT must be a number of seconds, not"),
    ],
)
def test_waiting_fails_at_once_where_no_waiting_helps(settings: dict[str, str], message: str) -> None:
    began = monotonic()
    done = run("echo", "app", env=environment(WAIT_FOR_DB="True", **settings))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert monotonic() - began < 20


def test_waiting_fails_at_once_for_a_database_that_does_not_exist(empty: URL) -> None:
    began = monotonic()
    done = run("echo", "app", env=environment(WAIT_FOR_DB="True", **database(empty.set(database="nowhere"))))
    assert (done.returncode, done.stdout) == (1, "")
    assert 'The database "nowhere" does not exist: create it' in done.stderr
    assert monotonic() - began < 20


def test_waiting_for_a_database_that_never_answers_is_bounded() -> None:
    began = monotonic()
    env = environment(
        WAIT_FOR_DB="True",
        WAIT_FOR_DB_TIMEOUT="2",
        DB_HOST="127.0.0.1",
        DB_PORT=str(free_port()),
        DB_USER="agent",
        DB_PASS="not-to-be-seen",  # noqa: S106 -- what must appear in no message
        DB_DATABASE="agent",
    )
    done = run("echo", "app", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "for 2 s." in done.stderr
    assert "not-to-be-seen" not in done.stderr
    assert 1 < monotonic() - began < 20


def test_waiting_goes_on_until_the_database_answers(empty: URL) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        sockets = Path(folder) / "sockets"
        url = empty.update_query_dict({"host": str(sockets)})
        process = subprocess.Popen(
            [ENTRYPOINT, "echo", "app"],
            env=environment(WAIT_FOR_DB="True", **database(url)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "for up to 60 s" in process.stderr.readline()
        sockets.symlink_to(str(empty.query["host"]))
        output, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (0, "app\n")


def test_sigterm_ends_the_waiting_at_once() -> None:
    """A server that takes the connection and says nothing keeps it waiting."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        host, port = silent.getsockname()
        settings = {"DB_HOST": host, "DB_PORT": str(port), "DB_USER": "agent", "DB_DATABASE": "agent"}
        env = environment(WAIT_FOR_DB="True", **settings)
        process = subprocess.Popen([ENTRYPOINT, "echo", "app"], env=env, stdout=subprocess.PIPE)
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        began = monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (143, b"")
        assert monotonic() - began < 8
        connection.close()
