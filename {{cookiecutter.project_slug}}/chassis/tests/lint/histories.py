"""Histories of revisions that follow `BASE`, and what the lint says of them."""

from collections.abc import Sequence
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import URL

from chassis.lint.old_code import OfClasses
from chassis.lint.trial import Report, Trial
from chassis.tests.lint.cases import BASE, classes
from chassis.tests.migrations.history import as_tables, config_of, copy_environment

NO_WAY_BACK = "raise NotImplementedError"
REVISION = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "r{number}"
down_revision = {down!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""


def python_of(steps: Sequence[str]) -> str:
    """Return the lines of Python that steps as those of `cases` stand for."""
    lines: list[str] = []
    for step in steps:
        alone = step.startswith("alone: ")
        text = step.removeprefix("alone: ")
        lines += ["with op.get_context().autocommit_block():"] * alone
        python = text if text.startswith(("op.", "for ", "raise ")) else f"op.execute({text!r})"
        lines += [f"{'    ' * alone}{line}" for line in python.splitlines()]
    return "\n".join(lines)


def lint(
    server: URL,
    folder: Path,
    *upgrades: str,
    back: str = NO_WAY_BACK,
    rows: str = "",
    base_known: bool = True,
) -> Report:
    """Try revisions, given as Python, all of which have the same way back."""
    versions = copy_environment(folder)
    for number, upgrade in enumerate((python_of([BASE]), *upgrades)):
        down = f"r{number - 1}" if number else None
        bodies = {"upgrade": _indented(upgrade), "downgrade": _indented(back)}
        (versions / f"{number}.py").write_text(
            REVISION.format(number=number, down=down, **bodies), encoding="utf-8"
        )
    config = config_of(folder)
    new = list(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))[1:]
    metadata = classes()
    known = OfClasses(metadata) if base_known else None
    with as_tables(metadata):
        return Trial(config, server, new, classes=known, own_rows=rows, base_known=base_known).run()


def _indented(python: str) -> str:
    return "".join(f"    {line}" for line in python.splitlines(keepends=True))
