"""Operations for what Alembic has none: steps with a way back of their own, statements, and enum types.

Revisions hold no trace of them: they are written as plain `op.execute` and `sa.Enum`.
https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html#creating-a-render-function
"""

import re
from collections.abc import Sequence
from typing import Any, Self

from alembic.autogenerate import render, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import AlterColumnOp
from sqlalchemy import Enum

# What SQLAlchemy's `text` takes for a parameter.
PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")


class Step(MigrateOperation):
    """Operations that belong together, and those that take them back."""

    def __init__(self, up: Sequence[MigrateOperation], down: Sequence[MigrateOperation]) -> None:
        self.up = tuple(up)
        self.down = tuple(down)

    def reverse(self) -> Self:
        """Return the way back."""
        return type(self)(self.down, self.up)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `as_diffs` shows."""
        return tuple(part.to_diff_tuple() for part in self.up)


class Sql(MigrateOperation):
    """A statement, as it stands."""

    def __init__(self, statement: str) -> None:
        self.statement = statement

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `as_diffs` shows."""
        return ("execute", self.statement)


class AlterColumn(AlterColumnOp):
    """Alembic's own, but that its `postgresql_using` is written too."""


class EnumType(MigrateOperation):
    """An enum type that is made, or dropped."""

    def __init__(self, schema: str | None, name: str, labels: Sequence[str], *, drop: bool = False) -> None:
        self.type = Enum(*labels, name=name, schema=schema)
        self.action = "drop" if drop else "create"

    def reverse(self) -> Self:
        """Return the way back."""
        kind = self.type
        return type(self)(kind.schema, str(kind.name), kind.enums, drop=self.action == "create")

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `as_diffs` shows."""
        return (f"{self.action}_enum", self.type)


@renderers.dispatch_for(Step)
def _render_step(context: AutogenContext, op: Step) -> list[str]:
    return [line for part in op.up for line in render.render_op(context, part)]


@renderers.dispatch_for(Sql)
def _render_sql(context: AutogenContext, op: Sql) -> str:
    return f"op.execute({escaped(op.statement)!r})"


@renderers.dispatch_for(AlterColumn)
def _render_alter_column(context: AutogenContext, op: AlterColumn) -> str:
    written = render._alter_column(context, op)
    using = op.kw.get("postgresql_using")
    return f"{written.removesuffix(')')}, postgresql_using={using!r})" if using else written


@renderers.dispatch_for(EnumType)
def _render_enum(context: AutogenContext, op: EnumType) -> str:
    labels = "".join(f"{label!r}, " for label in op.type.enums)
    schema = f", schema={op.type.schema!r}" if op.type.schema else ""
    return f"sa.Enum({labels}name={op.type.name!r}{schema}).{op.action}(op.get_bind())"


def escaped(statement: str) -> str:
    """Return the statement such that `text` takes no part of it for a parameter."""
    return PARAMETER.sub(r"\\:", statement)


def literal(value: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
