"""What autogenerate writes: all that PostgreSQL's catalogue tells of the database and of the classes.

The database is described, and so is what the classes make (`chassis.migrations.declared`). Whatever PostgreSQL
prints differently becomes an operation. Then the operations are run, there and back, and rolled back: what
they don't reach or what they trip over is told before anybody runs the file.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alembic.operations import MigrateOperation, MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError, msg
from sqlalchemy import Connection, MetaData, Table, inspect
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError

from chassis.migrations import rendering
from chassis.migrations.catalogue import Catalogue, Key
from chassis.migrations.changes import Change, TableChanges, catalogue_tables
from chassis.migrations.declared import (
    default_schema,
    describe_classes,
    describe_database,
    take_over_same,
)
from chassis.migrations.differences import Difference, differences
from chassis.migrations.enums import EnumChanges
from chassis.migrations.operations import Sql, Step
from chassis.migrations.order import drops_in_order, in_order, new_tables
from chassis.migrations.ownership import Ownership

# Of Alembic's own comparisons only the one that looks which schemas there are: the others guess, or ask the server for
# each table and default, and may crash. https://alembic.sqlalchemy.org/en/latest/api/plugins.html
PLUGINS = ["alembic.autogenerate.schemas"]
# Classes of SQLSTATE that blame rows, not the statement.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
OF_ROWS = ("22", "23")

Hook = Callable[[MigrationContext, Any, list[MigrationScript]], None]
render_item = rendering.render_item


def by_catalogue(metadata: MetaData, ownership: Ownership) -> Hook:
    """Make Alembic's hook `process_revision_directives`, which completes what autogenerate found.

    Where there is nothing to write it says so and writes no file. `check` gets an error with all differences.
    """

    def complete(context: MigrationContext, revision: Any, directives: list[MigrationScript]) -> None:
        script = directives[0]
        if script.upgrade_ops is None or script.downgrade_ops is None or context.connection is None:
            return
        comparison = Comparison(context, context.connection, metadata, ownership)
        options = context.config.cmd_opts if context.config else None
        side = context.config.attributes.get("differences") if context.config else None
        if side or (options is not None and options.cmd[0].__name__ == "check"):
            comparison.refuse_differences(side or "the database has")
        script.upgrade_ops.ops[:] = comparison.operations()
        script.downgrade_ops.ops[:] = [op.reverse() for op in reversed(script.upgrade_ops.ops)]
        if not script.upgrade_ops.is_empty():
            comparison.try_out(script.upgrade_ops.ops, script.downgrade_ops.ops)
        elif getattr(options, "autogenerate", False):
            directives.clear()
            msg("Tables and database agree: there is nothing to write a revision for.")

    return complete


class Comparison:
    """The database beside the classes."""

    def __init__(
        self, context: MigrationContext, connection: Connection, metadata: MetaData, ownership: Ownership
    ) -> None:
        self._context = context
        self._connection = connection
        self._metadata = metadata
        self._ownership = ownership
        self._preparer = connection.dialect.identifier_preparer
        self._database = self._describe()
        self._classes = describe_classes(connection, metadata, self._database)

    def refuse_differences(self, side: str) -> None:
        """Raise with a line for each difference, if there is any; `side` says who has what the classes haven't.

        Raises:
            CommandError: with the lines.
        """
        if found := differences(self._database, self._classes, self._ownership):
            lines = [difference.told(side) for difference in found]
            raise CommandError("\n  ".join(["New upgrade operations detected:", *lines]))

    def operations(self) -> list[MigrateOperation]:
        """Return what is to be done, in its order."""
        return [*self._schemas(), *in_order(self._changes())]

    def _changes(self) -> Iterator[Change]:
        existing = set(catalogue_tables(self._database, self._classes, self._ownership))
        tables = {key: self._table(key) for key in sorted(existing, key=str)}
        parts = {key: table.parts(set()) for key, table in tables.items()}
        gone = {(key, name) for key, (drop, _) in parts.items() for name in drop}
        parts = {key: table.parts(gone) for key, table in tables.items()}
        gone = {(key, name) for key, (drop, _) in parts.items() for name in drop}
        enums = EnumChanges(self._database, self._classes, self._preparer, gone)
        yield from enums.find(self._ownership)
        for key, table in tables.items():
            yield from table.find(*parts[key], enums.with_default)
        # What a foreign key of a new table may refer to is there only when these have changed.
        changed = {
            key for key, (_, make) in parts.items() if any(part.kind in "pui" for part in make.values())
        }
        for key in existing:
            if self._classes.tables[key].columns.keys() - self._database.tables[key].columns.keys():
                changed.add(key)
        yield from new_tables(list(self._new()), changed)
        drops = [
            self._reflected(key)
            for key in sorted(self._database.tables.keys() - self._classes.tables.keys(), key=str)
            if self._ownership.owns_table(*key)
        ]
        yield from drops_in_order(drops, self._database, self._preparer, gone)

    def _new(self) -> Iterator[Table]:
        """Yield the classes' tables that are to be made, those that others refer to first."""
        for table in self._metadata.sorted_tables:
            key = (table.schema, table.name)
            if key not in self._database.tables and self._ownership.owns_table(*key):
                yield table

    def _reflected(self, key: Key) -> Table:
        """Return a table as it is in the database, for the way back of its drop."""
        table = Table(key[1], MetaData(), schema=key[0])
        # It leaves the default of a serial column to SQLAlchemy.
        listen(table, "column_reflect", self._context.impl.autogen_column_reflect)
        inspect(self._connection).reflect_table(table, None, resolve_fks=False)
        return table

    def _table(self, key: Key) -> TableChanges:
        schema, name = key
        declared = self._metadata.tables[f"{schema}.{name}" if schema else name]
        return TableChanges(
            self._connection,
            key,
            self._database.tables[key],
            self._classes.tables[key],
            declared,
            self._ownership,
        )

    def _schemas(self) -> list[MigrateOperation]:
        """A schema that a new table needs is made first. It stays on the way back where others may use it."""
        wanted = {table.schema for table in self._new() if table.schema}
        new = sorted(wanted.difference(inspect(self._connection).get_schema_names()))
        return [_schema(self._preparer.quote(name)) for name in new]

    def try_out(self, upgrade: list[MigrateOperation], downgrade: list[MigrateOperation]) -> None:
        """Run the operations there and back, roll back, and say what they leave or trip over.

        Raises:
            CommandError: where a statement itself is wrong, so that it would fail on any rows.
        """
        savepoint = self._connection.begin_nested()
        try:
            if not self._run(upgrade, "upgrade"):
                return
            if left := differences(self._describe(), self._classes, self._ownership):
                _tell("Autogenerate doesn't know how to write this, so the revision leaves it to you:", left)
            if self._run(downgrade, "way back"):
                after = self._describe()
                schemas = {
                    schema: schema or default_schema(self._connection) for schema in self._ownership.schemas
                }
                take_over_same(self._connection, self._database, after, schemas, self._describe)
                if left := differences(after, self._database, self._ownership):
                    _tell("The way back leaves this as it is:", left)
        finally:
            savepoint.rollback()

    def _describe(self) -> Catalogue:
        return describe_database(self._connection, self._ownership.schemas)

    def _run(self, operations: Sequence[MigrateOperation], way: str) -> bool:
        """Run the operations as they will be written; tell of rows that stop them, and return whether all were run."""
        inner = self._connection.begin_nested()
        try:
            rendering.run(operations, self._context)
        except DBAPIError as error:
            inner.rollback()
            said = str(error.orig).strip()
            if (getattr(error.orig, "sqlstate", "") or "")[:2] in OF_ROWS:
                msg(
                    f"On the rows of this database the {way} fails, so change the revision before you run it: {said}"
                )
                return False
            raise CommandError(
                f"PostgreSQL refuses the {way} that these changes need. Write the revision by hand. It says: {said}"
            ) from error
        inner.commit()
        return True


def _tell(title: str, found: Sequence[Difference]) -> None:
    msg("\n  ".join([title, *(difference.told() for difference in found)]))


def _schema(quoted: str) -> MigrateOperation:
    return Step([Sql(f"CREATE SCHEMA IF NOT EXISTS {quoted}")], [Sql(f"DROP SCHEMA {quoted}")])
