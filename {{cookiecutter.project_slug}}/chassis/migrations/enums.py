"""Changes of enum types: made, dropped, and with other labels."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from alembic.operations import MigrateOperation
from sqlalchemy.sql.compiler import IdentifierPreparer

from chassis.migrations.catalogue import Catalogue, Key, Table
from chassis.migrations.operations import EnumType, Sql, Step, literal
from chassis.migrations.ownership import Ownership


@dataclass(frozen=True)
class EnumChanges:
    """The changes, each with the phase that it belongs to (see chassis/migrations/order.py)."""

    database: Catalogue
    classes: Catalogue
    preparer: IdentifierPreparer
    # Constraints and indexes that are gone while the types change: those that the revision drops.
    gone: Set[tuple[Key, str]]
    # Columns whose defaults change together with their type.
    with_default: set[tuple[Key, str]] = field(default_factory=set)

    def find(self, ownership: Ownership) -> Iterator[tuple[str, MigrateOperation]]:
        """Yield the changes of what is ours."""
        for key in sorted({*self.database.enums, *self.classes.enums}, key=str):
            had, wanted = self.database.enums.get(key), self.classes.enums.get(key)
            if had == wanted or not ownership.owns_enum(key[1]):
                continue
            if had is None:
                yield "make types", EnumType(*key, wanted or ())
            elif wanted is None:
                yield "drop types", EnumType(*key, had, drop=True)
            else:
                yield "change types", self._relabelled(key, had, wanted)

    def _relabelled(self, key: Key, had: tuple[str, ...], wanted: tuple[str, ...]) -> Step:
        # PostgreSQL takes no new label before the transaction that adds it has ended: one that is used replaces the type.
        if [label for label in wanted if label in had] == list(had) and not self._is_used(key):
            up = [self._add_label(key, had, wanted, label) for label in wanted if label not in had]
            return Step(up, list(self._replaced(key, had, self.database)))
        self.with_default.update(self.database.enum_columns[key])
        return Step(
            list(self._replaced(key, wanted, self.classes)), list(self._replaced(key, had, self.database))
        )

    def _add_label(self, key: Key, had: tuple[str, ...], wanted: tuple[str, ...], label: str) -> Sql:
        following = next((later for later in wanted[wanted.index(label) :] if later in had), None)
        place = f" BEFORE {literal(following)}" if following is not None else ""
        return Sql(f"ALTER TYPE {spelled(key, self.preparer)} ADD VALUE {literal(label)}{place}")

    def _is_used(self, key: Key) -> bool:
        """Whether something new on a table may name a label: a default, a check or an index's condition."""
        for table, column in self.classes.enum_columns[key]:
            declared = self.classes.tables[table]
            there = self.database.tables.get(table)
            before = there.columns.get(column) if there else None
            if declared.columns[column].default != (before.default if before else ""):
                return True
            known = {part.definition for part in there.parts.values()} if there else set()
            for part in declared.parts.values():
                if column in part.columns and "::" in part.definition and part.definition not in known:
                    return True
        return False

    def _replaced(self, key: Key, labels: tuple[str, ...], after: Catalogue) -> Iterator[Sql]:
        """Make the type anew, and let each column that has it take the new one; defaults are then those of `after`.

        A row whose label is no more makes it fail, and PostgreSQL says so.
        """
        name, old = spelled(key, self.preparer), f"{key[1]}_old"
        yield Sql(f"ALTER TYPE {name} RENAME TO {self.preparer.quote(old)}")
        yield Sql(f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, labels))})")
        for table, column in self.database.enum_columns[key]:
            there = self.database.tables.get(table)
            if there is not None:
                yield from self._take(name, table, there, column, after)
        yield Sql(f"DROP TYPE {spelled((key[0], old), self.preparer)}")

    def _take(self, type_: str, table: Key, there: Table, column: str, after: Catalogue) -> Iterator[Sql]:
        alter = f"ALTER TABLE {spelled(table, self.preparer)} ALTER COLUMN {self.preparer.quote(column)}"
        parts = {
            name: part
            for name, part in there.parts.items()
            if column in part.columns and part.kind in "icx" and "::" in part.definition
            if (table, name) not in self.gone
        }
        for name, part in parts.items():
            yield Sql(dropped(table, name, part.kind, self.preparer))
        later = (
            after.tables[table].columns.get(column, there.columns[column])
            if table in after.tables
            else there.columns[column]
        )
        default = later.default if later.type == there.columns[column].type else ""
        if there.columns[column].default or default:
            yield Sql(f"{alter} DROP DEFAULT")
        array = "[]" if there.columns[column].type.endswith("[]") else ""
        yield Sql(
            f"{alter} TYPE {type_}{array} USING {self.preparer.quote(column)}::text{array}::{type_}{array}"
        )
        if default:
            yield Sql(f"{alter} SET DEFAULT {default}")
        for name, part in parts.items():
            yield Sql(added(table, name, part.kind, part.definition, self.preparer))


def spelled(key: Key, preparer: IdentifierPreparer) -> str:
    """Return a name as SQL writes it."""
    schema, name = key
    return f"{preparer.quote(schema)}.{preparer.quote(name)}" if schema else preparer.quote(name)


def dropped(table: Key, name: str, kind: str, preparer: IdentifierPreparer) -> str:
    """Return the statement that drops a constraint or an index."""
    if kind == "i":
        return f"DROP INDEX {spelled((table[0], name), preparer)}"
    return f"ALTER TABLE {spelled(table, preparer)} DROP CONSTRAINT {preparer.quote(name)}"


def added(table: Key, name: str, kind: str, definition: str, preparer: IdentifierPreparer) -> str:
    """Return the statement that makes a constraint or an index, from how PostgreSQL prints it."""
    if kind == "i":
        return definition
    return f"ALTER TABLE {spelled(table, preparer)} ADD CONSTRAINT {preparer.quote(name)} {definition}"
