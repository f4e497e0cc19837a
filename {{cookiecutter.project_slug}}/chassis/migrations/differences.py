"""What differs between the database and the classes, a line each, as PostgreSQL prints both."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from chassis.migrations.catalogue import Catalogue, Column, Key, Table
from chassis.migrations.ownership import Ownership

KINDS = {
    "c": "CHECK",
    "f": "foreign key",
    "p": "primary key",
    "u": "unique constraint",
    "x": "EXCLUDE",
    "i": "index",
}
NOTHING = "nothing"
K = TypeVar("K")


class Difference(NamedTuple):
    """One difference: where, what is in the database, and what the classes make."""

    where: str
    database: str
    classes: str

    def told(self, side: str = "the database has") -> str:
        """Return the line that tells it; `side` says who has what the classes haven't."""
        return f"{self.where}: {side} {self.database}, the classes {self.classes}"


def differences(database: Catalogue, classes: Catalogue, ownership: Ownership) -> list[Difference]:
    """Return the differences of what is ours. What SQL of a revision added on purpose is none."""
    return list(_find(database, classes, ownership))


def _find(database: Catalogue, classes: Catalogue, ownership: Ownership) -> Iterator[Difference]:
    for key in _keys(database.tables, classes.tables):
        name = spelled(key)
        ours, theirs = classes.tables.get(key), database.tables.get(key)
        if not ownership.owns_table(*key):
            continue
        if ours is None or theirs is None:
            yield Difference(f"table {name}", _there(theirs), _there(ours))
        else:
            yield from _of_table(key, theirs, ours, ownership)
    for key in _keys(database.enums, classes.enums):
        had, wanted = database.enums.get(key), classes.enums.get(key)
        if had != wanted and ownership.owns_enum(key[1]):
            yield Difference(f"enum type {spelled(key)}", _labels(had), _labels(wanted))


def _of_table(key: Key, database: Table, classes: Table, ownership: Ownership) -> Iterator[Difference]:
    table = spelled(key)
    for aspect in ("partition_by", "unlogged", "comment"):
        had, wanted = getattr(database, aspect), getattr(classes, aspect)
        if had != wanted:
            yield Difference(f"{table}, {aspect.replace('_', ' ')}", _shown(had), _shown(wanted))
    for name in _keys(database.columns, classes.columns):
        column, declared = database.columns.get(name), classes.columns.get(name)
        if declared is None:
            if not ownership.made_by_hand(name):
                yield Difference(f"{table}.{name}", "the column", NOTHING)
        elif column is None:
            yield Difference(f"{table}.{name}", NOTHING, f"the column, {declared.type}")
        else:
            yield from _of_column(f"{table}.{name}", column, declared)
    for name in _keys(database.parts, classes.parts):
        part, made = database.parts.get(name), classes.parts.get(name)
        kind = KINDS[next(side.kind for side in (made, part) if side)]
        if (part and part[:2]) != (made and made[:2]) and (made or not ownership.made_by_hand(name)):
            yield Difference(
                f"{kind} {name} of {table}",
                part.definition if part else NOTHING,
                made.definition if made else NOTHING,
            )


def _of_column(where: str, database: Column, classes: Column) -> Iterator[Difference]:
    if (database.type, database.collation) != (classes.type, classes.collation):
        yield Difference(where, _type(database), _type(classes))
    for aspect, title in (
        ("not_null", "NOT NULL"), ("default", "default"), ("generated", "generated"),
        ("identity", "identity"), ("sequence", "sequence"), ("comment", "comment"),
    ):  # fmt: skip
        had, wanted = getattr(database, aspect), getattr(classes, aspect)
        if had != wanted:
            yield Difference(f"{where}, {title}", _shown(had), _shown(wanted))


def spelled(key: Key) -> str:
    """Return the name of a table or type, with its schema unless that is the default one."""
    schema, name = key
    return f"{schema}.{name}" if schema else name


def _keys(*sides: Iterable[K]) -> list[K]:
    return sorted({key for side in sides for key in side}, key=str)


def _there(table: Table | None) -> str:
    return NOTHING if table is None else "it"


def _labels(labels: tuple[str, ...] | None) -> str:
    return NOTHING if labels is None else ", ".join(labels)


def _type(column: Column) -> str:
    return f"{column.type} COLLATE {column.collation}" if column.collation else column.type


def _shown(value: str | bool) -> str:
    """Spell a value of an aspect; identities are told by a letter, and what is only there or not by a truth."""
    return {True: "it", False: NOTHING, "": NOTHING, "a": "ALWAYS", "d": "BY DEFAULT"}.get(value, str(value))
