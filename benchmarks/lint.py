"""Measure what the lint of new revisions takes: ``.venv/bin/python benchmarks/lint.py``, some three minutes.

Prints a Markdown table of ratios of medians, measured in turns, against `python -m chassis verify` of the same
workspace.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from measure import Comparison, Cost, compare, cost_of
from report import Measurements, Row, report, row, rows
from workshop import TEMPLATE, Workshop, open_workshop

REVISION = '''"""A revision of the benchmark's."""

import sqlalchemy as sa
from alembic import op

revision = "{id}"
down_revision = "{down}"


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''
TABLES = '''"""Tables of the benchmark's."""

import sqlalchemy as sa

from db.tables.base import Base

for number in range({tables}):
    sa.Table(
        f"bench_{{number}}",
        Base.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("other", sa.ForeignKey(f"bench_{{max(number - 1, 0)}}.id")),
        *(sa.Column(f"added_{{n}}", sa.Text) for n in range({new}) if n % {tables} == number),
    )
'''
CREATE = (
    'op.create_table("bench_{n}", sa.Column("id", sa.Integer, nullable=False), '
    'sa.Column("name", sa.String(50), nullable=False), sa.Column("other", sa.Integer), '
    'sa.PrimaryKeyConstraint("id", name=op.f("pk_bench_{n}")), '
    'sa.ForeignKeyConstraint(["other"], ["bench_{other}.id"], name=op.f("fk_bench_{n}_other_bench_{other}")))'
)


class Bench:
    """A workspace in git."""

    def __init__(self, workshop: Workshop) -> None:
        """Bake and install."""
        self.path, _ = workshop.bake(TEMPLATE)
        self.env = workshop.env
        self._versions = self.path / "db/migrations/versions"
        self._before = max(self._versions.glob("*.py")).name.split("-")[1].split("_")[0]

    def write(self, tables: int, new: int) -> None:
        """Release a revision with so many tables, and write so many that add a column to one of them each."""
        numbers = range(tables)
        for old in self._versions.glob("9999_*"):
            old.unlink()
        created = "\n    ".join(CREATE.format(n=n, other=max(n - 1, 0)) for n in numbers)
        dropped = "\n    ".join(f'op.drop_table("bench_{n}")' for n in reversed(numbers))
        self._revision("bench", self._before, created, dropped)
        module = self.path / "db/tables/bench.py"
        module.write_text(TABLES.format(tables=tables, new=0))
        self._git("add", "-A")
        self._git("commit", "--quiet", "--message", "Released")
        module.write_text(TABLES.format(tables=tables, new=new))
        for n in range(new):
            add = f'op.add_column("bench_{n % tables}", sa.Column("added_{n}", sa.Text()))'
            drop = f'op.drop_column("bench_{n % tables}", "added_{n}")'
            self._revision(f"bench{n}", f"bench{n - 1}" if n else "bench", add, drop)

    def compare(self, turns: int) -> Comparison:
        """Measure the lint and the verification in turns."""
        return compare(lambda: self._chassis("lint"), lambda: self._chassis("verify"), turns)

    def _chassis(self, command: str) -> Cost:
        return cost_of([".venv/bin/python", "-m", "chassis", command], self.path, self.env)

    def _revision(self, name: str, down: str, upgrade: str, downgrade: str) -> None:
        text = REVISION.format(id=name, down=down, upgrade=upgrade, downgrade=downgrade)
        (self._versions / f"9999_{name}.py").write_text(text)

    def _git(self, *arguments: str) -> None:
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
        subprocess.run(["git", *who, *arguments], cwd=self.path, env=self.env, check=True)


def one(bench: Bench, turns: int) -> Iterator[Row]:
    """One new revision, in a service with a dozen tables."""
    bench.write(tables=6, new=1)
    yield from rows("lint of one new revision ÷ verify", bench.compare(turns), {"wall": 1.5})


def many(bench: Bench, turns: int) -> Iterator[Row]:
    """How it grows with tables and with revisions."""
    for tables, new in ((200, 1), (6, 30), (200, 30)):
        bench.write(tables, new)
        ours, baseline = bench.compare(turns).medians("wall")
        yield row(f"lint of {new} revisions, {tables} tables ÷ verify", "wall", ours, baseline, None)


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Give a workspace in a temporary folder."""
    with open_workshop() as workshop:
        yield Bench(workshop)


MEASUREMENTS: Measurements[Bench] = {"one": (one, 7), "many": (many, 3)}

if __name__ == "__main__":
    sys.exit(report(__doc__.splitlines()[0], MEASUREMENTS, open_bench()))
