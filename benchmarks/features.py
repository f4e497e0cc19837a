"""Measure what features cost a run that doesn't use them: ``python benchmarks/features.py``, a minute for each.

The service with the feature and the service without it, in turns, on one PostgreSQL, with a provider that answers at once.
Prints a Markdown table of ratios of medians. The first row is the service against itself: what is within that is noise.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

from report import Measurements, Row, report
from servers import PEERS, Bench, Service, free_port, open_bench, ratio_row

SECONDS = 3


def sending(bench: Bench) -> dict[str, str]:
    """Start what traces and metrics are sent to, and return the setting that leads there."""
    port = free_port()
    bench.start([bench.python, PEERS / "receiver.py", str(port)], port)
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}


def sending_content(bench: Bench) -> dict[str, str]:
    """Return the settings for traces with what was said."""
    return {**sending(bench), "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "True"}


def fetched(_: Bench) -> dict[str, str]:
    """Return the setting for the endpoint that Prometheus fetches from."""
    return {"OTEL_EXPORTER_PROMETHEUS_PORT": str(free_port())}


# A tool that nobody calls.
ASKING = """

@AGENT.tool_plain(requires_approval=%s)
def erase(name: str) -> str:
    \"\"\"Erase what has this name.\"\"\"
    return f"{name} is erased"
"""


def approval(bench: Bench, wanted: bool = True) -> dict[str, Any]:
    """Return what serves the agent with one more tool, that needs a person's approval or doesn't."""
    return {"folder": bench.changed("agents/assistant.py", ASKING % wanted)}


def background(_: Bench) -> dict[str, Any]:
    """Return the setting by which runs may outlive their requests; none asks for it."""
    return {"AGENT_BACKGROUND": "True"}


def described(bench: Bench) -> dict[str, Any]:
    """Return what serves a workspace that describes an MCP server, which no agent names."""
    folder = bench.changed("agents/mcp.json", "")
    servers = {"time": {"command": "mcp-server-time"}}
    (folder / "agents/mcp.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return {"folder": folder}


def nothing(_: Bench) -> dict[str, Any]:
    """Return what serves the workspace as it is."""
    return {}


Variant = Callable[[Bench], Mapping[str, Any]]
# What serves the feature, what serves the same without it, and how much more CPU time a run may take, where that is
# promised. A feature that is unused, or switched off, gets a line with 1.05.
FEATURES: Mapping[str, tuple[Variant, Variant, float | None]] = {
    "nothing": (nothing, nothing, 1.05),
    "approval": (approval, partial(approval, wanted=False), 1.05),
    "background": (background, nothing, 1.05),
    "mcp": (described, nothing, 1.05),
    "prometheus": (fetched, nothing, None),
    "traces": (sending, nothing, None),
    "content": (sending_content, nothing, None),
}


def with_and_without(
    bench: Bench, turns: int, name: str, ours: Variant, base: Variant, goal: float | None
) -> Iterator[Row]:
    """Compare a run's CPU time, and runs a second, with those of the service that lacks the feature."""
    services = (bench.ours(f"with_{name}", **ours(bench)), bench.ours(f"without_{name}", **base(bench)))
    for service in services:
        bench.load(service, SECONDS)
    pairs = [[measure(bench, service) for service in services] for _ in range(turns)]
    mine, floor = (tuple(map(median, zip(*side, strict=True))) for side in zip(*pairs, strict=True))
    what = f"run with {name} ÷ without"
    yield ratio_row(what, "ms", mine[0], floor[0], goal, figure="CPU time of a run")
    yield ratio_row(what, "per second", mine[1], floor[1])
    for service in services:
        service.stop()


def measure(bench: Bench, service: Service) -> tuple[float, float]:
    """Return the milliseconds of CPU time that a run takes, and runs a second."""
    before = service.cpu()
    rate = bench.load(service, SECONDS)
    return 1000 * (service.cpu() - before) / (rate * SECONDS), rate


MEASUREMENTS: Measurements[Bench] = {
    name: (partial(with_and_without, name=name, ours=ours, base=base, goal=goal), 7)
    for name, (ours, base, goal) in FEATURES.items()
}


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
