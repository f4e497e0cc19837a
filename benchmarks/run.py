"""Measure how long a bake and its parts take, against what they are made of: ``make bench``.

Prints a Markdown table of ratios: medians of ours over medians of the baseline, measured in turns.
"""

import sys
from collections.abc import Iterator
from statistics import median

from hook_time import time_hooks
from measure import compare, cost_of
from migrations import all_rows
from report import Measurements, Row, report, row, rows
from workshop import TEMPLATE, UPGRADE, Workshop, alembic_of, open_workshop


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
MEASUREMENTS: Measurements[Workshop] = {
    "plain": (plain_bake, 15),
    "verified": (verified_bake, 7),
    "hook": (hooks, 7),
    "noop": (noop_upgrade, 21),
    "migrations": (all_rows, 3),
}


if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_workshop()))
