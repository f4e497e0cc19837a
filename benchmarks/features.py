"""Measure what features cost a run that doesn't use them: ``python benchmarks/features.py``, a minute for each.

The service with the feature and the service without it, in turns, on one PostgreSQL, with a provider that answers at once.
Prints a Markdown table of ratios of medians. The first row is the service against itself: what is within that is noise.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median

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


# What the feature needs in the environment, and how much more CPU time a run may take with it, where that is promised.
# A feature that is unused, or switched off, gets a line with 1.05.
FEATURES: Mapping[str, tuple[Callable[[Bench], Mapping[str, str]], float | None]] = {
    "nothing": (lambda _: {}, 1.05),
    "prometheus": (fetched, None),
    "traces": (sending, None),
    "content": (sending_content, None),
}


def with_and_without(
    bench: Bench, turns: int, name: str, settings: Callable[[Bench], Mapping[str, str]], goal: float | None
) -> Iterator[Row]:
    """Compare a run's CPU time, and runs a second, with those of the service that lacks the feature."""
    services = (bench.ours(f"with_{name}", **settings(bench)), bench.ours(f"without_{name}"))
    for service in services:
        bench.load(service, SECONDS)
    pairs = [[measure(bench, service) for service in services] for _ in range(turns)]
    ours, base = (tuple(map(median, zip(*side, strict=True))) for side in zip(*pairs, strict=True))
    what = f"run with {name} ÷ without"
    yield ratio_row(what, "ms", ours[0], base[0], goal, figure="CPU time of a run")
    yield ratio_row(what, "per second", ours[1], base[1])
    for service in services:
        service.stop()


def measure(bench: Bench, service: Service) -> tuple[float, float]:
    """Return the milliseconds of CPU time that a run takes, and runs a second."""
    before = service.cpu()
    rate = bench.load(service, SECONDS)
    return 1000 * (service.cpu() - before) / (rate * SECONDS), rate


MEASUREMENTS: Measurements[Bench] = {
    name: (partial(with_and_without, name=name, settings=settings, goal=goal), 7)
    for name, (settings, goal) in FEATURES.items()
}


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
