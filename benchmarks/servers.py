"""The servers that are measured over HTTP: ours, the bare parts and agno's, with one database and one provider."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from measure import MeasurementError, cost_of
from report import Row
from workshop import TEMPLATE, UPGRADE, Workshop, alembic_of, open_workshop

PEERS = Path(__file__).resolve().parent / "peers"
AGNO = ("agno[os]==3.1.10", "openai", "psycopg[binary]", "sqlalchemy[asyncio]", "uvicorn")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
QUESTION = json.dumps({"input": "What is the capital of France?"})
RUNS = "/v1/agents/assistant/runs"
CLIENTS = 20


@dataclass(frozen=True)
class Service:
    """A server that runs, and how it is asked."""

    port: int
    process: subprocess.Popen[bytes]
    path: str = ""
    content_type: str = JSON
    body: str = QUESTION

    def _pids(self) -> list[str]:
        """Return the processes: it, and its workers where it has several."""
        workers = subprocess.run(
            ["pgrep", "--parent", str(self.process.pid)], check=False, capture_output=True, text=True
        )
        return [str(self.process.pid), *workers.stdout.split()]

    def memory(self) -> float:
        """Return the resident memory in KiB."""
        shown = subprocess.run(
            ["ps", "-o", "rss=", "-p", ",".join(self._pids())], check=True, capture_output=True
        )
        return sum(map(float, shown.stdout.split()))

    def cpu(self) -> float:
        """Return the CPU time it has used so far, in seconds."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait()


class Bench:
    """All servers, on one database server and one provider."""

    def __init__(self, stack: ExitStack, workshop: Workshop) -> None:
        """Install and start what the measurements share."""
        self.stack, self.workshop, self._counted = stack, workshop, 0
        self.workspace, _ = workshop.bake(
            TEMPLATE, "install=no", "init_git=no", "use_ag_ui=yes", "use_prometheus=yes"
        )
        cost_of([workshop.uv, "sync", "--quiet"], self.workspace, workshop.env)
        self.python = self.workspace / ".venv/bin/python"
        self.url = stack.enter_context(workshop.database(self.workspace))
        self.provider = free_port()
        self.start([self.python, PEERS / "provider.py", str(self.provider)], self.provider)

    def count(self) -> int:
        """Return a number that hasn't been used."""
        self._counted += 1
        return self._counted

    def env(self, database: str, **variables: str) -> dict[str, str]:
        """Make a database, and return the environment that leads to it and to the provider."""
        make = f"import os, psycopg; psycopg.connect(os.environ['U'], autocommit=True).execute('CREATE DATABASE {database}')"
        plain = self.url.replace("+psycopg", "")
        cost_of([self.python, "-c", make], self.workspace, self.workshop.env | {"U": plain})
        return self.workshop.env | {
            "DATABASE_URL": self.url.replace("/postgres?", f"/{database}?"),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.provider}/v1",
            "OPENAI_API_KEY": "not-a-key",
            **variables,
        }

    def ours(
        self, name: str, model: str = "fake", *, folder: Path | None = None, **variables: str
    ) -> Service:
        """Start the workspace, or a changed copy of it in this folder, on a database of its own."""
        env = self.env(name, AGENT_MODEL=f"openai-chat:{model}", **variables)
        cost_of([alembic_of(self.workspace), *UPGRADE], self.workspace, env)
        return self.serve(self.python, folder or self.workspace, "api.main:app", env, RUNS)

    def changed(self, file: str, more: str) -> Path:
        """Copy the workspace, with more at the end of one of its files, and return the folder."""
        folder = self.workshop.folder / f"changed{self.count()}"
        shutil.copytree(self.workspace, folder, ignore=shutil.ignore_patterns(".venv", ".postgres"))
        with (folder / file).open("a", encoding="utf-8") as text:
            text.write(more)
        return folder

    @cached_property
    def _agno(self) -> Path:
        """Install agno, and return its Python."""
        folder = self.workshop.folder / "agno"
        cost_of(
            [self.workshop.uv, "venv", "--quiet", "--python", self.python, folder], PEERS, self.workshop.env
        )
        cost_of(
            [self.workshop.uv, "pip", "install", "--quiet", "-p", folder, *AGNO], PEERS, self.workshop.env
        )
        return folder / "bin/python"

    def agno(self, name: str, model: str = "fake", *, stream: bool = False) -> Service:
        """Start the same agent under agno's own API, on a database of its own."""
        env = self.env(name, MODEL=model)
        served = self.serve(self._agno, PEERS, "agno_api:app", env, "/agents/assistant/runs")
        body = f"message=What+is+the+capital+of+France%3F&stream={str(stream).lower()}"
        return replace(served, content_type=FORM, body=body)

    def serve(self, python: Path, folder: Path, app: str, env: dict[str, str], path: str) -> Service:
        """Start an app under uvicorn, one worker, all else as it comes."""
        port = free_port()
        process = self.start([python, "-m", "uvicorn", app, "--port", str(port)], port, cwd=folder, env=env)
        return Service(port, process, path)

    def start(self, command: list[str | Path], port: int, **options: object) -> subprocess.Popen[bytes]:
        """Start a server that stops with the bench, and wait until it takes connections."""
        log = self.stack.enter_context((self.workshop.folder / f"log{port}").open("w+b"))
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)  # type: ignore
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        deadline = time.monotonic() + 60
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise MeasurementError(log.read().decode(errors="replace")[-4000:])
            time.sleep(0.02)
        return process

    def client(self, script: str, *arguments: object, body: str = "") -> dict[str, object]:
        """Run one of the clients and return what it printed."""
        command = [str(self.python), str(PEERS / script), *map(str, arguments)]
        done = subprocess.run(command, input=body.encode(), capture_output=True, check=False)
        if done.returncode:
            raise MeasurementError(done.stderr.decode(errors="replace")[-3000:])
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def load(self, service: Service, seconds: float) -> float:
        """Return how many runs a second the service does for CLIENTS clients."""
        address = f"127.0.0.1:{service.port}"
        arguments = (address, service.path, CLIENTS, seconds, service.content_type)
        return float(str(self.client("load.py", *arguments, body=service.body)["per_second"]))


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str | None = None) -> bool:
    """Tell whether somebody takes connections there, or answers 200 at the path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.connect()
        if path is None:
            return True
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Give a bench whose servers stop with the block."""
    with open_workshop() as workshop, ExitStack() as stack:
        yield Bench(stack, workshop)


def ratio_row(
    what: str,
    unit: str,
    ours: float,
    base: float,
    goal: float | None = None,
    *,
    most: bool = True,
    figure: str = "",
) -> Row:
    """Return a row of two medians and their ratio, which is to be `goal` at most, or else at least.

    `figure` says what was measured where the unit doesn't.
    """
    ratio = ours / base
    verdict = ""
    if goal is not None:
        verdict = "met" if (round(ratio, 2) <= goal if most else round(ratio, 2) >= goal) else "missed"
    wanted = "" if goal is None else f"{'≤' if most else '≥'} {goal}"
    digits = 2 if unit == "s" else 1
    short = "/s" if unit == "per second" else f" {unit}"
    return (
        what,
        figure or ("rate" if unit == "per second" else "time"),
        f"{ours:.{digits}f}{short}",
        f"{base:.{digits}f}{short}",
        f"{ratio:.2f}",
        wanted,
        verdict,
    )
