"""Measure streams, over HTTP and with PostgreSQL: ``python benchmarks/streams.py``, some ten minutes.

The model's provider is a stand-in that writes a word every 25 milliseconds. Prints a Markdown table of ratios of
medians, measured in turns, against FastAPI with openai's client and against agno's own API.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from measure import MeasurementError
from report import Measurements, Row, report
from servers import JSON, PEERS, QUESTION, RUNS, Bench, Service, open_bench, ratio_row

STREAMS = 200
TOKENS = 200
PAUSE_MS = 25
# When a stream ends that nobody is in the way of.
IDEAL_SECONDS = TOKENS * PAUSE_MS / 1000
MODEL = f"stream-{TOKENS}-{PAUSE_MS}"
SIZES = (25, 50, 75, 100, 150, 200, 300)
CARRIED = "tokens a CPU-second"
COMPLETIONS = "/v1/chat/completions"
CHAT: dict[str, Any] = {"stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
# Our routes: what is asked of which path, and what the first word is known by.
ROUTES: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "native": (RUNS, json.loads(QUESTION), "event: text"),
    "chat completions": (COMPLETIONS, {"model": "assistant", **CHAT}, "word"),
    "Vercel": (
        "/v1/agents/assistant/vercel",
        {
            "trigger": "submit-message",
            "id": "UNIQUE",
            "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "Hello?"}]}],
        },
        "text-delta",
    ),
    "AG-UI": (
        "/v1/agents/assistant/ag-ui",
        {
            "threadId": "UNIQUE",
            "runId": "r",
            "state": None,
            "messages": [{"id": "m", "role": "user", "content": "Hello?"}],
            "tools": [],
            "context": [],
            "forwardedProps": None,
        },
        "TEXT_MESSAGE_CONTENT",
    ),
}


@dataclass(frozen=True)
class Streams:
    """A server that streams, and what its first word is known by."""

    name: str
    service: Service
    mark: str

    def read(self, bench: Bench, number: int) -> tuple[float, float, float, float]:
        """Open so many streams at once and read them.

        Returns the median time to the first word, when the last ended, the CPU time, and the peak memory in KiB.
        """
        service = self.service
        before = service.cpu()
        address = f"127.0.0.1:{service.port}"
        command = [str(bench.python), str(PEERS / "streams.py"), address, service.path, str(number)]
        reading = subprocess.Popen(
            [*command, self.mark, service.content_type], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert reading.stdin is not None  # noqa: S101 -- for the type checker
        assert reading.stdout is not None  # noqa: S101 -- for the type checker
        reading.stdin.write(service.body.encode())
        reading.stdin.close()
        peak = 0.0
        while reading.poll() is None:
            peak = max(peak, service.memory())
            time.sleep(0.2)
        printed = reading.stdout.read()
        if reading.returncode:
            raise MeasurementError(f"{self.name}: the streams failed.")
        told = json.loads(printed)
        if told["ended"] != number:
            raise MeasurementError(f"{self.name}: of {number} streams only {told['ended']} ended.")
        return median(told["first"]), told["last"], service.cpu() - before, peak


def ours(bench: Bench, route: str, model: str = MODEL, **variables: str) -> Streams:
    """Start ours, to be asked by the route."""
    path, body, mark = ROUTES[route]
    database = f"s{bench.count()}"
    served = bench.ours(database, model, AGENT_CONCURRENT_RUNS="2000", **variables)
    return Streams(route, replace(served, path=path, body=json.dumps(body)), mark)


def bare(bench: Bench) -> Streams:
    """Start FastAPI with openai's client."""
    served = bench.serve(bench.python, PEERS, "bare_stream:app", bench.env(f"s{bench.count()}"), COMPLETIONS)
    body = json.dumps({"model": MODEL, **CHAT})
    return Streams("FastAPI + openai's client", replace(served, body=body), "word")


def alone(bench: Bench) -> Streams:
    """Start FastAPI with pydantic-ai's agent."""
    env = bench.env(f"s{bench.count()}", MODEL=MODEL)
    served = bench.serve(bench.python, PEERS, "agent_alone:app", env, "/stream")
    return Streams("pydantic-ai's agent alone", served, "word")


def agno(bench: Bench) -> Streams:
    """Start agno's API."""
    return Streams("agno's API", bench.agno(f"s{bench.count()}", MODEL, stream=True), "RunContent")


def load(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare the tokens that a CPU-second carries when STREAMS streams come at once, when the last ends, and memory."""
    sides = [*(ours(bench, route) for route in ROUTES), bare(bench), alone(bench), agno(bench)]
    told: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    memory = {}
    for side in sides:
        side.read(bench, 1)  # what the first run of all imports isn't a stream's
        before = side.service.memory()
        memory[side.name] = (side.read(bench, STREAMS)[3] - before) / STREAMS
    for _ in range(turns):
        for side in sides:
            _, last, cpu, _ = side.read(bench, STREAMS)
            told[side.name].append((STREAMS * TOKENS / cpu, last))
    rates, lasts = (
        {name: median(pair[at] for pair in pairs) for name, pairs in told.items()} for at in (0, 1)
    )
    names = [side.name for side in sides]
    # Goals of tokens, the end of the last, and memory.
    goals = zip(names[len(ROUTES) :], ((0.6, 1.5, None), (None, None, None), (1.5, None, 1)), strict=True)
    for base, (carried, late, kept) in goals:
        for route in ROUTES:
            what = f"{STREAMS} streams, {route} ÷ {base}"
            yield ratio_row(
                what, "per second", rates[route], rates[base], carried, most=False, figure=CARRIED
            )
            yield ratio_row(f"{what}: the last ends", "s", lasts[route], lasts[base], late)
            yield ratio_row(f"{what}: each", "KiB", memory[route], memory[base], kept, figure="memory")
    for side in sides:
        side.service.stop()


def knee(bench: Bench, turns: int) -> Iterator[Row]:
    """Find how many streams at once still end within a fifth more than the ideal time, and triple that."""
    sides = [
        *(ours(bench, route, AGENT_TIMEOUT="20") for route in ROUTES),
        bare(bench),
        alone(bench),
        agno(bench),
    ]
    for side in sides:
        side.read(bench, 1)
        carried = 0
        for number in SIZES:
            if median(side.read(bench, number)[1] for _ in range(turns)) > 1.2 * IDEAL_SECONDS:
                break
            carried = number
        yield (f"streams that {side.name} carries in time", "number", str(carried), "", "", "", "")
        if side.name in ROUTES:
            many = 3 * max(carried, SIZES[0])
            _, last, _, _ = side.read(bench, many)  # which fails where one is lost
            what = f"{many} streams at once, {side.name}, AGENT_TIMEOUT=20, none lost: the last ends"
            yield (
                what,
                "time",
                f"{last:.2f} s",
                f"{IDEAL_SECONDS:.2f} s",
                f"{last / IDEAL_SECONDS:.2f}",
                "",
                "",
            )
        side.service.stop()


def workers(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare two workers with one; clients and provider use the same two cores."""
    runs, streams = [], []
    for number in ("1", "2"):
        runs.append(bench.ours(f"runs{number}", WEB_CONCURRENCY=number))
        streams.append(ours(bench, "native", WEB_CONCURRENCY=number))
    for service in runs:
        bench.load(service, 2)
    rates = [[bench.load(service, 3) for service in runs] for _ in range(turns)]
    one, two = (median(side) for side in zip(*rates, strict=True))
    yield ratio_row("runs, two workers ÷ one", "per second", two, one)
    told = [[side.read(bench, STREAMS)[1:3] for side in streams] for _ in range(turns + 1)][1:]
    (first, last), (cpu, cpu2) = (
        [median(turn[side][at] for turn in told) for side in (0, 1)] for at in (0, 1)
    )
    yield ratio_row(f"{STREAMS} streams, two workers ÷ one: the last ends", "s", last, first)
    rate, rate2 = STREAMS * TOKENS / cpu, STREAMS * TOKENS / cpu2
    yield ratio_row(f"{STREAMS} streams, two workers ÷ one", "per second", rate2, rate, figure=CARRIED)
    for service in (*runs, *(side.service for side in streams)):
        service.stop()


def first(bench: Bench, turns: int) -> Iterator[Row]:
    """Measure the time to the first token beyond the provider's own."""
    model = "stream-20-100"
    mine = ours(bench, "native", model)
    asked = json.dumps({"model": model, "stream": True})
    provider = Service(bench.provider, mine.service.process, COMPLETIONS, JSON, asked)
    sides = (mine, Streams("provider", provider, "word"))
    mine.read(bench, 1)
    for number, times in ((1, 2 * turns), (STREAMS, max(turns // 2, 1))):
        told = [[side.read(bench, number)[0] for side in sides] for _ in range(times)]
        own, theirs = (1000 * median(side) for side in zip(*told, strict=True))
        what = f"first token of {number} stream{'s' * (number > 1)} beyond the provider's"
        yield (what, "time", f"{own:.1f} ms", f"{theirs:.1f} ms", f"+{own - theirs:.1f} ms", "", "")
    mine.service.stop()


MEASUREMENTS: Measurements[Bench] = {
    "load": (load, 3),
    "knee": (knee, 1),
    "workers": (workers, 3),
    "first": (first, 4),
}


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
