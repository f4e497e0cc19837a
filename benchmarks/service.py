"""Measure the service itself, over HTTP and with PostgreSQL: ``python benchmarks/service.py``, some four minutes.

Only the model's provider is a stand-in, one that answers at once. Prints a Markdown table of ratios of medians,
measured in turns, against the bare parts and against agno's own API.
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import MeasurementError, cost_of
from report import Measurements, Row, report
from workshop import TEMPLATE, UPGRADE, Workshop, alembic_of, open_workshop

PEERS = Path(__file__).resolve().parent / "peers"
AGNO = ("agno[os]==3.1.10", "openai", "psycopg[binary]", "sqlalchemy[asyncio]", "uvicorn")
JSON = "application/json"
QUESTION = json.dumps({"input": "What is the capital of France?"})
RUNS = "/v1/agents/assistant/runs"
CLIENTS = 20
STREAMS = 200


@dataclass(frozen=True)
class Service:
    """A server that runs, and how it is asked."""

    port: int
    process: subprocess.Popen[bytes]
    path: str = ""
    content_type: str = JSON
    body: str = QUESTION

    def memory(self) -> float:
        """Return the resident memory in KiB."""
        shown = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.process.pid)], check=True, capture_output=True
        )
        return float(shown.stdout)


class Bench:
    """All servers, on one database server and one provider."""

    def __init__(self, stack: ExitStack, workshop: Workshop) -> None:
        """Install and start what the measurements share."""
        self.stack, self.workshop = stack, workshop
        self.workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no")
        cost_of([workshop.uv, "sync", "--quiet"], self.workspace, workshop.env)
        self.python = self.workspace / ".venv/bin/python"
        self.url = stack.enter_context(workshop.database(self.workspace))
        self.provider = free_port()
        self.start([self.python, PEERS / "provider.py", str(self.provider)], self.provider)

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

    def ours(self, name: str, model: str = "fake", **variables: str) -> Service:
        """Start the workspace on a database of its own."""
        env = self.env(name, AGENT_MODEL=f"openai-chat:{model}", **variables)
        cost_of([alembic_of(self.workspace), *UPGRADE], self.workspace, env)
        return self.serve(self.python, self.workspace, "api.main:app", env, RUNS)

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
        while not _answers(port):
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


def throughput(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare runs a second with those of the bare parts, and of the same agent under agno's own API."""
    env = bench.workshop.env
    agno = bench.workshop.folder / "agno"
    cost_of([bench.workshop.uv, "venv", "--quiet", "--python", bench.python, agno], PEERS, env)
    cost_of([bench.workshop.uv, "pip", "install", "--quiet", "-p", agno, *AGNO], PEERS, env)
    ours = bench.ours("ours")
    bare = bench.serve(bench.python, PEERS, "bare:app", bench.env("bare"), "/run")
    peer = bench.serve(
        agno / "bin/python", PEERS, "agno_api:app", bench.env("agno"), "/agents/assistant/runs"
    )
    form = "application/x-www-form-urlencoded", "message=What+is+the+capital+of+France%3F&stream=false"
    peer = Service(peer.port, peer.process, peer.path, *form)
    for service in (ours, bare, peer):
        bench.load(service, 2)
    rates = [[bench.load(service, 3) for service in (ours, bare, peer)] for _ in range(turns)]
    mine, floor, theirs = (median(side) for side in zip(*rates, strict=True))
    yield _row(
        "runs with history kept ÷ bare FastAPI + httpx + one row", "per second", mine, floor, 0.5, most=False
    )
    yield _row("runs with history kept ÷ agno's API", "per second", mine, theirs, 2.5, most=False)
    for service in (ours, bare, peer):
        service.process.terminate()


def streams(bench: Bench, turns: int) -> Iterator[Row]:
    """Measure the time to the first token beyond the provider's own, and the memory of an open stream."""
    model = "stream-20-100"
    ours = bench.ours("streams", model)
    asked = json.dumps({"model": model, "stream": True})

    def first(number: int) -> tuple[float, float]:
        seconds = []
        for port, path, mark, body in (
            (ours.port, RUNS, "event: text", QUESTION),
            (bench.provider, "/v1/chat/completions", "word", asked),
        ):
            told = bench.client("streams.py", f"127.0.0.1:{port}", path, number, mark, body=body)
            if told["ended"] != number:
                raise MeasurementError(f"Of {number} streams only {told['ended']} ended.")
            seconds.append(median(told["first"]))  # type: ignore
        return seconds[0], seconds[1]

    first(1)  # what the first run of all imports isn't a stream's
    before = ours.memory()
    reading = subprocess.Popen(
        [bench.python, PEERS / "streams.py", f"127.0.0.1:{ours.port}", RUNS, str(STREAMS), "event: text"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert reading.stdin is not None  # noqa: S101 -- for the type checker
    reading.stdin.write(QUESTION.encode())
    reading.stdin.close()
    most = before
    while reading.poll() is None:
        most = max(most, ours.memory())
        time.sleep(0.05)
    each = (most - before) / STREAMS
    yield (f"one of {STREAMS} open streams", "memory", f"{each:.0f} KiB", "", "", "", "")
    for number, times in ((1, 2 * turns), (STREAMS, max(turns // 2, 1))):
        pairs = [first(number) for _ in range(times)]
        mine, theirs = (1000 * median(side) for side in zip(*pairs, strict=True))
        what = f"first token of {number} stream{'s' * (number > 1)} beyond the provider's"
        yield (what, "time", f"{mine:.1f} ms", f"{theirs:.1f} ms", f"+{mine - theirs:.1f} ms", "", "")
    ours.process.terminate()


def ready(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare the time until the container's command is ready with a bare FastAPI that imports pydantic-ai."""
    env = bench.env("ready", AGENT_MODEL="openai-chat:fake")
    cost_of([alembic_of(bench.workspace), *UPGRADE], bench.workspace, env)
    path = f"{bench.workspace / '.venv/bin'}:{env['PATH']}"

    def until_ready(folder: Path, *command: str | Path) -> float:
        port = free_port()
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=env | {"PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not _answers(port, "/ready"):
                if process.poll() is not None or time.perf_counter() - began > 60:
                    raise MeasurementError(f"{command[-1]} did not get ready.")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()

    def ours() -> float:
        return until_ready(bench.workspace, "scripts/entrypoint.sh", "uvicorn", "api.main:app")

    def bare() -> float:
        return until_ready(PEERS, "uvicorn", "ready:app")

    pairs = [(ours(), bare()) for _ in range(turns + 1)][1:]
    mine, floor = (median(side) for side in zip(*pairs, strict=True))
    yield _row("container's command until ready ÷ FastAPI + pydantic-ai imported", "s", mine, floor)


def growth(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare a turn of a short conversation with one of a conversation of 1,000 messages."""
    # What the model is sent is the same each time, so that what differs is what is stored.
    ours = bench.ours("growth", AGENT_HISTORY_MESSAGES="10")
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=60)

    def turn(conversation: str | None) -> tuple[str, float]:
        body = json.dumps({"input": "And then?", "conversation_id": conversation})
        began = time.perf_counter()
        connection.request("POST", RUNS, body, {"Content-Type": JSON})
        answer = json.loads(connection.getresponse().read())
        return answer["conversation_id"], time.perf_counter() - began

    def grown(messages: int) -> str:
        conversation, _ = turn(None)
        for _ in range(messages // 2 - 1):
            turn(conversation)
        return conversation

    long, pairs = grown(1000), []
    for _ in range(turns):
        short = grown(12)
        pairs += [(turn(long)[1], turn(short)[1]) for _ in range(6)]
    mine, floor = (1000 * median(side) for side in zip(*pairs, strict=True))
    yield _row("turn after 1,000 messages ÷ after 12 to 24", "ms", mine, floor, 1.1)
    ours.process.terminate()


def _row(
    what: str, unit: str, ours: float, base: float, goal: float | None = None, *, most: bool = True
) -> Row:
    ratio = ours / base
    verdict = ""
    if goal is not None:
        verdict = "met" if (round(ratio, 2) <= goal if most else round(ratio, 2) >= goal) else "missed"
    wanted = "" if goal is None else f"{'≤' if most else '≥'} {goal}"
    digits = 2 if unit == "s" else 1
    figure = "rate" if unit == "per second" else "time"
    short = "/s" if unit == "per second" else f" {unit}"
    return (
        what,
        figure,
        f"{ours:.{digits}f}{short}",
        f"{base:.{digits}f}{short}",
        f"{ratio:.2f}",
        wanted,
        verdict,
    )


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, path: str | None = None) -> bool:
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


MEASUREMENTS: Measurements[Bench] = {
    "throughput": (throughput, 7),
    "streams": (streams, 5),
    "ready": (ready, 5),
    "growth": (growth, 5),
}


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Give a bench whose servers stop with the block."""
    with open_workshop() as workshop, ExitStack() as stack:
        yield Bench(stack, workshop)


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
