"""Measure the image: ``sudo .venv/bin/python benchmarks/image.py``, some five minutes. Needs root on Linux, and buildah.

Its size, the time it takes to be ready, and to be built anew. Prints a Markdown table of ratios of medians, measured
in turns, against the same app without a container.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import MeasurementError, cost_of
from report import Measurements, Row, report, row
from workshop import TEMPLATE, UPGRADE, Workshop, open_workshop

from tests.support.containers import PYTHON, Builder, BuildError, Image, open_builder, reason_against, stop
from tests.support.places import request
from tests.support.servers import Server, debian_server, free_port, wheel_programs

IMAGE = "agent-api"


class Bench:
    """The image and the same app without a container, on one database server."""

    def __init__(self, stack: ExitStack, workshop: Workshop) -> None:
        """Install and build what the measurements share."""
        self.workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no", f"python_version={PYTHON}")
        self.venv = self.workspace / ".venv"
        sync = [workshop.uv, "sync", "--quiet", "--no-dev", "--compile-bytecode", "--python", PYTHON]
        cost_of(sync, self.workspace, workshop.env)
        containers = workshop.folder / "containers"
        containers.mkdir()
        opened = open_builder(containers, Path(workshop.uv), self.workspace)
        self.builder: Builder = stack.enter_context(opened)
        self.build()
        self.image: Image = self.builder.mount(IMAGE)
        self.server: Server = stack.enter_context(debian_server(programs=wheel_programs()))
        self.env = workshop.env

    def build(self, *options: str) -> float:
        """Build the image and return how long that took."""
        command = self.builder.build_command(self.workspace, IMAGE, *options)
        return cost_of(command, self.workspace, self.builder.env).wall

    def settings(self) -> dict[str, str]:
        """Make a database, and return what leads the app to it."""
        settings = {"RUNTIME_ENV": "prd", "OPENAI_API_KEY": "not-a-key", "UVICORN_HOST": "127.0.0.1"}
        return self.server.new_database().env | settings

    def seconds_to_ready(
        self, command: Sequence[str], port: int, env: Mapping[str, str] | None = None
    ) -> float:
        """Start the command and return how long it took until the app was ready."""
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=self.workspace, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while request(port, "GET", "/ready") != 200:
                if process.poll() is not None or time.perf_counter() - began > 120:
                    raise MeasurementError(f"The app wasn't ready: {' '.join(command)}")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            stop(process)


def size(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare the image's size, before compression, with those of its parts."""
    image, base = (_megabytes(bench.builder, name) for name in (IMAGE, "python"))
    archive = ["tar", "-C", str(bench.venv), "-cf", "-", "."]
    packages = len(subprocess.run(archive, check=True, capture_output=True).stdout) / 1e6
    ratio = image / (base + packages)
    shown = (f"{image:.0f} MB", f"{base:.0f} + {packages:.0f} MB", f"{ratio:.2f}")
    verdict = "met" if round(ratio, 2) <= 1.1 else "missed"
    yield ("image ÷ (base + installed packages)", "size", *shown, "≤ 1.1", verdict)


def start(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare the time until /ready answers with 200."""
    uvicorn = "exec .venv/bin/uvicorn api.main:app"
    for what, migrate, script in (
        ("container until /ready ÷ app without one", "False", uvicorn),
        (
            "container with MIGRATE_DB, empty database ÷ alembic + app",
            "True",
            f".venv/bin/alembic {' '.join(UPGRADE)} && {uvicorn}",
        ),
    ):
        pairs = []
        for _ in range(turns + 1):
            pair = []
            for inside in (True, False):
                port = free_port()
                env = bench.settings() | {"UVICORN_PORT": str(port), "MIGRATE_DB": migrate}
                if migrate == "False":
                    cost_of([bench.venv / "bin/alembic", *UPGRADE], bench.workspace, bench.env | env)
                command = bench.image.command(env) if inside else ["sh", "-c", script]
                pair.append(bench.seconds_to_ready(command, port, bench.env | env))
            pairs.append(pair)
        ours, base = (median(side) for side in zip(*pairs[1:], strict=True))
        yield row(what, "wall", ours, base, None)


def rebuild(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare building after a change of one line with building all of it; packages needn't be downloaded."""
    source = bench.workspace / "agents/assistant.py"
    pairs = []
    for turn in range(turns):
        full = bench.build("--no-cache")
        bench.build()  # fills the cache, if the build above hasn't
        source.write_text(source.read_text(encoding="utf-8") + f"\n# {turn}\n", encoding="utf-8")
        pairs.append((bench.build(), full))
    ours, base = (median(side) for side in zip(*pairs, strict=True))
    yield row("build after one changed line ÷ whole build", "wall", ours, base, None)


MEASUREMENTS: Measurements[Bench] = {"size": (size, 1), "start": (start, 7), "rebuild": (rebuild, 3)}


def _megabytes(builder: Builder, image: str) -> float:
    folder = builder.unpack(image, builder.folder / f"{image}-unpacked")
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Give a bench whose server and images go away with the block.

    Raises:
        MeasurementError: where no image can be built.
    """
    if reason := reason_against():
        raise MeasurementError(reason)
    try:
        with open_workshop() as workshop, ExitStack() as stack:
            yield Bench(stack, workshop)
    except BuildError as error:
        raise MeasurementError(str(error)) from error


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
