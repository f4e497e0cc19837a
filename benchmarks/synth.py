"""Measure how long the AWS templates take to write: ``.venv/bin/python benchmarks/synth.py``, a minute.

Prints a Markdown table of ratios of medians, measured in turns, against an app of the CDK with one empty stack.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import Cost, compare, cost_of
from report import Measurements, Row, report, rows
from workshop import TEMPLATE, Workshop, open_workshop

from tests.support.cloud import synth_script

EMPTY = "import aws_cdk, sys; app = aws_cdk.App(outdir=sys.argv[1]); aws_cdk.Stack(app, 'empty'); app.synth()"


class Bench:
    """infra/ with its environment."""

    def __init__(self, workshop: Workshop) -> None:
        """Bake and install."""
        workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no")
        self.folder = workspace / "infra"
        (workspace / "db/global-bundle.pem").write_text("The authority's certificate.\n")
        cost_of([workshop.uv, "sync", "--quiet", "--no-dev"], self.folder, workshop.env)
        # Node.js is part of the environment.
        path = f"{self.folder / '.venv/bin'}{os.pathsep}{workshop.env['PATH']}"
        self.env = {**workshop.env, "PATH": path}

    def write(self, script: str) -> Cost:
        """Return what writing the templates took."""
        return cost_of([".venv/bin/python", "-c", script, "cdk.out"], self.folder, self.env)


def synth(bench: Bench, turns: int) -> Iterator[Row]:
    """Compare the stacks of stg and prd, and their registry, with an empty one."""
    script = synth_script("new")
    compared = compare(lambda: bench.write(script), lambda: bench.write(EMPTY), turns)
    yield from rows("templates of stg and prd, checked ÷ an empty stack", compared, {})


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Give a bench whose folder goes away with the block."""
    with open_workshop() as workshop:
        yield Bench(workshop)


MEASUREMENTS: Measurements[Bench] = {"synth": (synth, 5)}

if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
