"""Run commands, measure what they take, and compare two ways of doing a thing."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# getrusage(2): kibibytes on Linux, bytes on macOS.
RSS_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


class MeasurementError(Exception):
    """A measured command did not succeed, so there is nothing to compare."""


@dataclass(frozen=True)
class Cost:
    """What commands took.

    `wall` and `cpu` (user + system) are in seconds and add up over the commands. `peak` is the
    largest resident memory of one process among them and the ones they waited for, in MiB.
    """

    wall: float
    cpu: float
    peak: float

    def __add__(self, other: "Cost") -> "Cost":
        """Add the costs of commands that ran one after the other."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))


@dataclass(frozen=True)
class Comparison:
    """The costs of two ways, measured in turns."""

    ours: Sequence[Cost]
    baseline: Sequence[Cost]

    def medians(self, figure: str) -> tuple[float, float]:
        """Return the medians of the figure ("wall", "cpu" or "peak"), ours and the baseline's."""
        ours, baseline = ([getattr(cost, figure) for cost in side] for side in (self.ours, self.baseline))
        return median(ours), median(baseline)


def cost_of(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run the command in the folder `cwd` and return what it took, its children included.

    Raises:
        MeasurementError: with the end of what the command printed.
    """
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            printed = output.read().decode(errors="replace").strip().splitlines()[-40:]
            shown = " ".join(str(part) for part in command)
            raise MeasurementError(
                "\n".join([f"This command ended with {process.returncode}: {shown}", *printed])
            )
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / RSS_UNITS_PER_MIB)


def compare(ours: Callable[[], Cost], baseline: Callable[[], Cost], runs: int) -> Comparison:
    """Measure both in turns, so that a slow minute of the machine meets both; the first turn is a warm-up."""
    turns = [(ours(), baseline()) for _ in range(runs + 1)][1:]
    return Comparison([a for a, _ in turns], [b for _, b in turns])
