"""Measure the service itself, over HTTP and with PostgreSQL: ``python benchmarks/service.py``, some four minutes.

Only the model's provider is a stand-in, one that answers at once. Prints a Markdown table of ratios of medians,
measured in turns, against the bare parts and against agno's own API.
"""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from measure import MeasurementError, cost_of
from report import Measurements, Row, report
from servers import JSON, PEERS, RUNS, Bench, answers, free_port, open_bench, ratio_row
from workshop import UPGRADE, alembic_of


def throughput(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare runs a second with those of the bare parts, and of the same agent under agno's own API."""
    ours = bench.ours("ours")
    bare = bench.serve(bench.python, PEERS, "bare:app", bench.env("bare"), "/run")
    alone = bench.serve(bench.python, PEERS, "agent_alone:app", bench.env("alone"), "/run")
    services = (ours, bare, alone, bench.agno("agno"))
    for service in services:
        bench.load(service, 2)
    rates = [[bench.load(service, 3) for service in services] for _ in range(turns)]
    mine, *others = (median(side) for side in zip(*rates, strict=True))
    for what, base, goal in zip(
        (
            "bare FastAPI + httpx + one row",
            "FastAPI + pydantic-ai's agent, nothing kept",
            "agno's API, history kept",
        ),
        others,
        (None, 0.75, 1.8),
        strict=True,
    ):
        yield ratio_row(f"runs with history kept ÷ {what}", "per second", mine, base, goal, most=False)
    for service in services:
        service.stop()


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
            while not answers(port, "/ready"):
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
    yield ratio_row("container's command until ready ÷ FastAPI + pydantic-ai imported", "s", mine, floor, 1.3)


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
    yield ratio_row("turn after 1,000 messages ÷ after 12 to 24", "ms", mine, floor, 1.1)
    ours.stop()


MEASUREMENTS: Measurements[Bench] = {
    "throughput": (throughput, 7),
    "ready": (ready, 5),
    "growth": (growth, 5),
}


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
