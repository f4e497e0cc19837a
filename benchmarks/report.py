"""The table that a benchmark prints, and the command line that they share."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import TypeVar

from measure import Comparison, MeasurementError

HEADER = ("what", "figure", "ours", "baseline", "ratio", "goal", "")
UNITS = {"wall": ("wall time", "s", 2), "cpu": ("CPU time", "s", 2), "peak": ("peak memory", "MiB", 0)}
Row = tuple[str, ...]
Bench = TypeVar("Bench")
# What measures, and how many turns give a steady median.
Measurements = Mapping[str, tuple[Callable[[Bench, int], Iterable[Row]], int]]


def rows(what: str, compared: Comparison, goals: Mapping[str, float]) -> Iterator[Row]:
    """Return a row a figure; `goals` has the highest ratio wanted, where there is one."""
    for figure in UNITS:
        ours, baseline = compared.medians(figure)
        yield row(what, figure, ours, baseline, goals.get(figure))


def row(what: str, figure: str, ours: float, baseline: float, goal: float | None) -> Row:
    """Return one row of the table as texts."""
    name, unit, digits = UNITS[figure]
    ratio = ours / baseline
    wanted = "" if goal is None else f"≤ {goal}"
    verdict = "" if goal is None else "met" if round(ratio, 2) <= goal else "missed"
    shown = [f"{value:.{digits}f} {unit}" for value in (ours, baseline)]
    return (what, name, *shown, f"{ratio:.2f}", wanted, verdict)


def report(description: str, measurements: Measurements[Bench], opened: AbstractContextManager[Bench]) -> int:
    """Measure what the command line names, print a Markdown table, and return the exit code.

    Args:
        description: of the command, for its help.
        measurements: what there is to measure, by name.
        opened: gives what the measurements share, for as long as they run.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("what", nargs="*", choices=[*measurements, []], help="default: all")
    fewest, most = (choose(turns for _, turns in measurements.values()) for choose in (min, max))
    parser.add_argument("--turns", type=int, help=f"turns of each measurement (default: {fewest} to {most})")
    arguments = parser.parse_args()
    if arguments.turns is not None and arguments.turns < 1:
        parser.error("--turns must be 1 or more")
    print(_machine() + "\n", flush=True)
    table: list[Row] = [HEADER]
    try:
        with opened as bench:
            for name in arguments.what or measurements:
                measure, turns = measurements[name]
                print(f"... {name}", file=sys.stderr, flush=True)
                for measured in measure(bench, arguments.turns or turns):
                    table.append(measured)
                    print(*measured, sep=" | ", file=sys.stderr, flush=True)
    except MeasurementError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _print_table(table)
    return 0


def _print_table(table: list[Row]) -> None:
    """Print a Markdown table with even columns."""
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    print("\n".join(lines))


def _machine() -> str:
    """Return what was measured on, in one line."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}, "
        f"Python {platform.python_version()}, Cookiecutter {version('cookiecutter')}"
    )
