"""Changes of enum types, where alembic-postgresql-enum alone would write a wrong revision."""

from collections.abc import Iterator
from typing import Any

from alembic.operations.ops import ExecuteSQLOp, UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult, msg
from alembic_postgresql_enum.operations.add_enum_values import AddEnumValuesOp
from sqlalchemy import ARRAY, Column, Enum
from sqlalchemy.sql.compiler import IdentifierPreparer
from sqlalchemy.types import TypeEngine

# https://alembic.sqlalchemy.org/en/latest/api/plugins.html
PLUGIN = "db.migrations.enums"


def postpone_default(
    autogen_context: Any,
    alter_column_op: Any,
    schema: str | None,
    table: str,
    column: str,
    inspected: Column[Any],
    declared: Column[Any],
) -> PriorityDispatchResult:
    """Leave a column's default alone while its enum type changes: the next revision can set it.

    PostgreSQL, which Alembic asks whether two defaults are equal, doesn't know the new values yet, and
    takes none as a default in the transaction that adds it.
    """
    before, after = _values(inspected.type), _values(declared.type)
    if before is None or after is None or before == after:
        return PriorityDispatchResult.CONTINUE
    if declared.server_default is not None:
        msg(f"{table}.{column}: its enum type changes, so a new default is for the next revision.")
    return PriorityDispatchResult.STOP


Plugin(PLUGIN).add_autogenerate_comparator(postpone_default, "column", "server_default")


def spell_out_new_values(operations: UpgradeOps, preparer: IdentifierPreparer) -> None:
    """Write new enum values as SQL that puts each in its declared place. The extension puts some elsewhere."""
    operations.ops[:] = [
        written
        for op in operations.ops
        for written in (_additions(op, preparer) if isinstance(op, AddEnumValuesOp) else [op])
    ]


def _additions(op: AddEnumValuesOp, preparer: IdentifierPreparer) -> Iterator[ExecuteSQLOp]:
    name = f"{preparer.quote(op.schema)}.{preparer.quote(op.name)}"
    for position, value in enumerate(op.new_values):
        if value not in op.old_values:
            next_old = next((later for later in op.new_values[position:] if later in op.old_values), None)
            place = f" BEFORE {_literal(next_old)}" if next_old is not None else ""
            yield ExecuteSQLOp(f"ALTER TYPE {name} ADD VALUE {_literal(value)}{place}")


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''").replace(":", "\\:") + "'"


def _values(column_type: TypeEngine[Any]) -> list[str] | None:
    if isinstance(column_type, ARRAY):
        column_type = column_type.item_type
    return list(column_type.enums) if isinstance(column_type, Enum) else None
