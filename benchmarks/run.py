"""Measure how long a bake and its parts take, against what they are made of: ``make bench``.

Prints a Markdown table of ratios: medians of ours over medians of the baseline, measured in turns.
"""

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from statistics import median

from hook_time import time_hooks
from measure import Comparison, MeasurementError, compare, cost_of
from migrations import all_rows
from workshop import TEMPLATE, UPGRADE, Workshop, alembic_of, open_workshop

HEADER = ("what", "figure", "ours", "baseline", "ratio", "goal", "")
UNITS = {"wall": ("wall time", "s", 2), "cpu": ("CPU time", "s", 2), "peak": ("peak memory", "MiB", 0)}
Row = tuple[str, ...]


def plain_bake(workshop: Workshop, runs: int) -> Iterator[Row]:
    """Compare a bake that only writes files with Cookiecutter on a template of one file."""
    compared = compare(
        lambda: workshop.bake_once(TEMPLATE, "install=no", "init_git=no"),
        lambda: workshop.bake_once(workshop.one_file),
        runs,
    )
    yield from rows("bake without install ÷ one-file template", compared, {"wall": 1.5})


def verified_bake(workshop: Workshop, runs: int) -> Iterator[Row]:
    """Compare the default bake with its parts done by hand."""
    compared = compare(workshop.verified_bake, workshop.bake_by_hand, runs)
    yield from rows("verified bake ÷ bake + uv sync + upgrade head", compared, {"wall": 1.3})


def hooks(workshop: Workshop, runs: int) -> Iterator[Row]:
    """Compare the hooks with the commands they run."""
    times = [time_hooks(workshop) for _ in range(runs + 1)][1:]
    process = median(after.process for _, after in times)
    commands = median(after.commands for _, after in times)
    own = median(after.process - after.commands for _, after in times)
    yield row("hook after the bake ÷ its commands", "wall", process, commands, None)
    yield ("hook after the bake, itself", "wall time", f"{own:.3f} s", "", "", "", "")
    before = median(before.process for before, _ in times)
    yield ("hook before the bake, itself", "wall time", f"{before:.3f} s", "", "", "", "")


def noop_upgrade(workshop: Workshop, runs: int) -> Iterator[Row]:
    """Compare `upgrade head` where nothing is to do with the same on a bare Alembic project."""
    workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no")
    cost_of([workshop.uv, "sync"], workspace, workshop.env)
    alembic = alembic_of(workspace)
    with workshop.database(workspace) as url:
        env = workshop.env | {"DATABASE_URL": url}
        bare = workshop.bare_project(workspace, url)
        cost_of([alembic, *UPGRADE], workspace, env)
        compared = compare(
            lambda: cost_of([alembic, *UPGRADE], workspace, env),
            lambda: cost_of([alembic, "upgrade", "head"], bare, workshop.env),
            runs,
        )
    yield from rows("no-op upgrade head ÷ bare Alembic project", compared, {"wall": 1.1, "peak": 1.1})


# Name -> measurement, and how many turns give a steady median.
MEASUREMENTS = {
    "plain": (plain_bake, 15),
    "verified": (verified_bake, 7),
    "hook": (hooks, 7),
    "noop": (noop_upgrade, 21),
    "migrations": (all_rows, 3),
}


def rows(what: str, compared: Comparison, goals: dict[str, float]) -> Iterator[Row]:
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


def print_table(table: list[Row]) -> None:
    """Print a Markdown table with even columns."""
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    print("\n".join(lines))


def machine() -> str:
    """Return what was measured on, in one line."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}, "
        f"Python {platform.python_version()}, Cookiecutter {version('cookiecutter')}"
    )


def main() -> int:
    """Measure what the arguments name and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*MEASUREMENTS, []], help="default: all")
    parser.add_argument("--runs", type=int, help="turns of each measurement (default: 7 to 21)")
    arguments = parser.parse_args()
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs must be 1 or more")
    print(machine() + "\n", flush=True)
    table: list[Row] = [HEADER]
    try:
        with open_workshop() as workshop:
            for name in arguments.what or MEASUREMENTS:
                measure, runs = MEASUREMENTS[name]
                runs = arguments.runs or runs
                print(f"... {name}: 1 warm-up and {runs} turns", file=sys.stderr, flush=True)
                table += measure(workshop, runs)
    except MeasurementError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_table(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
