"""What autogenerate writes beyond Alembic's own: schemas, drops in order, and no file for no change."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from alembic.operations import MigrationScript
from alembic.operations.ops import CreateTableOp, DropTableOp, ExecuteSQLOp, UpgradeOps
from alembic.runtime.migration import MigrationContext
from alembic.util import msg
from sqlalchemy import inspect

from db.migrations import enums


def adjust(context: MigrationContext, revision: Any, directives: list[MigrationScript]) -> None:
    """Change in place what autogenerate found, as Alembic's `process_revision_directives` hook.

    A table is dropped before those that it refers to. A schema that a new table needs is created
    first and dropped last. Where `revision` has nothing to write it says so and writes no file.
    """
    script = directives[0]
    if script.upgrade_ops is None or script.downgrade_ops is None or context.connection is None:
        return
    _sort_drops(script.upgrade_ops)
    script.downgrade_ops.ops[:] = script.upgrade_ops.reverse().ops
    enums.spell_out_new_values(script.upgrade_ops, context.dialect.identifier_preparer)
    existing = inspect(context.connection).get_schema_names()
    for schema in sorted(_schemas(script.upgrade_ops).difference(existing)):
        name = context.dialect.identifier_preparer.quote(schema)
        script.upgrade_ops.ops.insert(0, ExecuteSQLOp(f"CREATE SCHEMA IF NOT EXISTS {name}"))
        script.downgrade_ops.ops.append(ExecuteSQLOp(f"DROP SCHEMA {name}"))
    # `check` comes through here too, and needs to see that there is nothing.
    options = context.config.cmd_opts if context.config else None
    if script.upgrade_ops.is_empty() and getattr(options, "autogenerate", False):
        directives.clear()
        msg("Tables and database agree: there is nothing to write a revision for.")


def _schemas(operations: UpgradeOps) -> set[str]:
    """The schemas, apart from the default one, in which the operations create a table."""
    created: Iterable[CreateTableOp] = (op for op in operations.ops if isinstance(op, CreateTableOp))
    return {op.schema for op in created if op.schema}


def _sort_drops(operations: UpgradeOps) -> None:
    """Move the drops of tables, in the places that drops have, into the order of their foreign keys."""
    drops = {(op.schema, op.table_name): op for op in operations.ops if isinstance(op, DropTableOp)}
    order: TopologicalSorter[tuple[str | None, str]] = TopologicalSorter()
    for key, op in drops.items():
        order.add(key)
        for target in op.to_table().foreign_keys:
            schema, _, table = target.target_fullname.rpartition(".")[0].rpartition(".")
            if (schema or None, table) in drops and (schema or None, table) != key:
                order.add((schema or None, table), key)
    try:
        in_order = [drops[key] for key in order.static_order()]
    except CycleError:  # tables that refer to each other are for a person to take apart
        return
    places = iter(in_order)
    operations.ops[:] = [next(places) if isinstance(op, DropTableOp) else op for op in operations.ops]
