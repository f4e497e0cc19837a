"""The embedded PostgreSQL ends with the last process that uses it."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from tests.conftest import Workspace


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
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    postmaster = int((workspace.path / ".postgres/postmaster.pid").read_text(encoding="utf-8").split()[0])
    assert alive(postmaster)
    process.send_signal(number)
    process.wait(20)
    deadline = time.monotonic() + 10
    while alive(postmaster):
        assert time.monotonic() < deadline, "the embedded PostgreSQL was left running"
        time.sleep(0.1)
