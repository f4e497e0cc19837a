"""In which order a revision does things: nothing before what it needs is there, nothing dropped while it is needed.

The way back is the same list from its end, each operation reversed.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from graphlib import CycleError, TopologicalSorter

from alembic.operations import MigrateOperation
from alembic.operations.ops import CreateForeignKeyOp, CreateIndexOp, CreateTableOp, DropIndexOp, DropTableOp
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Table
from sqlalchemy.sql.compiler import IdentifierPreparer
from sqlalchemy.sql.elements import conv

from chassis.migrations.catalogue import Catalogue, Key
from chassis.migrations.catalogue import Table as Described
from chassis.migrations.enums import added, dropped
from chassis.migrations.operations import Sql, Step

PHASES = (
    "make types",
    "drop foreign keys",
    "drop parts",
    "change types",
    "make tables",
    "change tables",
    "add columns",
    "change columns",
    "drop columns",
    "make keys",
    "make parts",
    "make foreign keys",
    "drop tables",
    "drop types",
)


def in_order(phased: Iterable[tuple[str, MigrateOperation]]) -> list[MigrateOperation]:
    """Return the operations by their phases; those of a phase stay as they come."""
    return [op for _, op in sorted(phased, key=lambda pair: PHASES.index(pair[0]))]


def new_tables(tables: Sequence[Table], changed: Set[Key]) -> Iterator[tuple[str, MigrateOperation]]:
    """Yield the new tables with their indexes, and apart those foreign keys for which they come too early.

    These are the ones to a table that is made later, `use_alter` among them, and to a table that is `changed`
    and may get only then what they refer to.
    """
    to_come = {(table.schema, table.name) for table in tables}
    for table in tables:
        to_come.discard((table.schema, table.name))
        create = CreateTableOp.from_table(table)
        later = {
            key for key in table.foreign_key_constraints if key.use_alter or _target(key) in to_come | changed
        }
        # Only of the list: the columns are those of the classes themselves.
        create.columns = [item for item in create.columns if not any(item is key for key in later)]
        yield "make tables", create
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield "make tables", CreateIndexOp.from_index(index)
        for key in sorted(later, key=lambda key: str(key.name)):
            yield "make foreign keys", CreateForeignKeyOp.from_constraint(key)


def _target(constraint: ForeignKeyConstraint) -> Key:
    schema, _, table = constraint.elements[0].target_fullname.rpartition(".")[0].rpartition(".")
    return (schema or None, table)


def drops_in_order(
    drops: Sequence[Table], database: Catalogue, preparer: IdentifierPreparer, gone: Set[tuple[Key, str]]
) -> Iterator[tuple[str, MigrateOperation]]:
    """Yield the drops of tables: those that refer to another one first, and before all the keys that go in circles.

    Before all go those keys, too, that need a constraint which the revision drops: those in `gone`. What comes
    back on the way back is as it was: partitioned, unlogged, with its indexes and checks.
    """
    tables = {(table.schema, table.name): table for table in drops}
    keys = {
        (key, name): part
        for key in tables
        for name, part in database.tables[key].parts.items()
        if part.kind == "f" and part.target in tables and part.target != key
    }
    graph: TopologicalSorter[Key] = TopologicalSorter(dict.fromkeys(tables, ()))
    for (key, _), part in keys.items():
        graph.add(part.target or key, key)
    early = {
        (key, name): part
        for key in tables
        for name, part in database.tables[key].parts.items()
        if (part.target, part.target_constraint) in gone
    }
    try:
        order = list(graph.static_order())
    except CycleError:
        order, early = sorted(tables, key=str), early | keys
    for (key, name), part in sorted(early.items(), key=str):
        statement = added(key, name, "f", part.definition, preparer)
        yield "drop foreign keys", Step([Sql(dropped(key, name, "f", preparer))], [Sql(statement)])
    for key in order:
        yield (
            "drop tables",
            _drop(
                tables[key], database.tables[key], {name for table, name in early if table == key}, preparer
            ),
        )


def _drop(table: Table, described: Described, without: Set[str], preparer: IdentifierPreparer) -> Step:
    """Drop a table, and on the way back make it without these foreign keys."""
    key = (table.schema, table.name)
    # Reflection knows neither EXCLUDE nor partitions, and prints a check in other words.
    apart = {name: part for name, part in described.parts.items() if part.kind in "icx"}
    up: list[MigrateOperation] = [
        DropIndexOp(conv(name), table_name=table.name, schema=table.schema)
        for name in sorted(apart)
        if apart[name].kind == "i"
    ]
    create = CreateTableOp.from_table(table)
    create.columns = [
        item
        for item in create.columns
        if not isinstance(item, CheckConstraint)
        if not (isinstance(item, ForeignKeyConstraint) and item.name in without)
    ]
    if described.partition_by:
        create.kw["postgresql_partition_by"] = described.partition_by
    if described.unlogged:
        create.prefixes = ["UNLOGGED"]
    back = [
        Sql(added(key, name, part.kind, part.definition, preparer)) for name, part in sorted(apart.items())
    ]
    return Step([*up, DropTableOp(table.name, schema=table.schema)], [create, *back])
