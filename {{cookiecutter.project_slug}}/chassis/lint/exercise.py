"""What the code of the last release does with its tables: reads every column, inserts, updates, deletes.

Run as a program it does so with the classes of another folder, which is what a container does that still runs the
last release: ``python exercise.py FOLDER``. It then answers each line of standard input, in JSON a database's URL and
the names of tables, with a line: the failures. So it imports nothing of the chassis.
"""

import importlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Delete,
    MetaData,
    Table,
    create_engine,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

SAMPLE = 100
TRIES = 12
REFERRED_TO = "23503"  # https://www.postgresql.org/docs/current/errcodes-appendix.html
WRITES = frozenset({"insert", "update", "delete"})
TABLE = "to_regclass(concat_ws('.', quote_ident(CAST(:schema AS text)), quote_ident(CAST(:name AS text))))"
NULLABLE = text(f"""
    SELECT attname::text FROM pg_attribute
     WHERE attrelid = {TABLE} AND attnum > 0 AND NOT attisdropped AND NOT attnotnull
""")
UNIQUE = text(f"""
    SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))
      FROM pg_index i WHERE i.indrelid = {TABLE} AND i.indisunique AND i.indpred IS NULL
""")
FOREIGN = text(f"""
    SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey))
      FROM pg_constraint k WHERE k.conrelid = {TABLE} AND k.contype = 'f'
""")
# Table as the class spells it, what was done, the column or "".
Failures = dict[tuple[str, str, str], str]


def mapped(metadata: MetaData, mappers: Iterable[Any] = ()) -> dict[Table, list[Column[Any]]]:
    """Return each table with the columns that the classes read: all of them where no class does."""
    found: dict[Table, list[Column[Any]]] = {}
    for mapper in mappers:
        for column in mapper.columns:
            if isinstance(column, Column) and isinstance(column.table, Table):
                columns = found.setdefault(column.table, [])
                if column not in set(columns):
                    columns.append(column)
    return {table: found.get(table) or list(table.columns) for table in metadata.tables.values()}


def exercise(
    connection: Connection, tables: dict[Table, list[Column[Any]]], only: Collection[str] | None = None
) -> Failures:
    """Let the classes work on the database and take all of it back; return what failed, and in which words.

    Args:
        connection: as a superuser; without a transaction.
        tables: as `mapped` returns them.
        only: the names of the tables that are looked at, all for None.
    """
    failures: Failures = {}
    for table, columns in tables.items():
        if only is None or table.fullname in only:
            with connection.begin() as transaction:
                _exercise_table(connection, table, columns, failures)
                transaction.rollback()
    return failures


def _exercise_table(
    connection: Connection, table: Table, columns: list[Column[Any]], failures: Failures
) -> None:
    rows, said = _attempt(connection, select(*columns).limit(SAMPLE))
    if said:
        broken = {
            c.name: words for c in columns if (words := _attempt(connection, select(c).limit(SAMPLE))[1])
        }
        # Where it isn't one column or another it is the table.
        found = broken if 0 < len(broken) < len(columns) else {"": said}
        failures |= {(table.fullname, "read", column): words for column, words in found.items()}
        return
    _promises(connection, table, columns, failures)
    key: list[Any] = list(table.primary_key.columns)
    place = key or [literal_column("tableoid::oid"), literal_column("ctid::text")]
    rows, _ = _attempt(connection, select(*columns, *place).select_from(table).limit(TRIES))
    # One row that the classes can write is enough for each: what rows hold is made up.
    refused: dict[str, str] = {}
    worked: set[str] = set()
    for row in rows or ():
        values = dict(zip(columns, row[: len(columns)], strict=True))
        condition = [column == value for column, value in zip(place, row[len(columns) :], strict=True)]
        of_row = _write(connection, table, values, condition)
        refused = of_row | refused
        worked |= WRITES - of_row.keys()
        if worked == WRITES:
            break
    failures |= {(table.fullname, what, ""): refused[what] for what in refused.keys() - worked}


def _attempt(connection: Connection, statement: Any) -> tuple[Any, str]:
    """Return the rows, and in which words it was refused, "" where it wasn't."""
    try:
        with connection.begin_nested():
            result = connection.execute(statement)
            return result.all() if result.returns_rows else None, ""
    except (SQLAlchemyError, LookupError, ValueError, TypeError) as error:
        cause = getattr(error, "orig", None)
        if isinstance(statement, Delete) and getattr(cause, "sqlstate", "") == REFERRED_TO:
            return None, ""  # which rows others refer to is made up, too
        said = str(cause or error).strip().splitlines()
        return None, said[0] if said else type(error).__name__


def _write(
    connection: Connection, table: Table, values: Mapping[Column[Any], Any], condition: Sequence[Any]
) -> dict[str, str]:
    """Update the row, delete it, and insert one just like it; return what was refused, and in which words.

    It is inserted once whole, and once without what has a default.
    """
    writable = {
        c: v for c, v in values.items() if c.computed is None and not (c.identity and c.identity.always)
    }
    whole = {c.name: v for c, v in writable.items()}
    least = {
        c.name: v
        for c, v in writable.items()
        if c.server_default is None and c.identity is None and c is not table.autoincrement_column
    }
    refused: dict[str, str] = {}
    if changes := {c.name: v for c, v in writable.items() if not c.primary_key}:
        refused["update"] = _attempt(connection, table.update().where(*condition).values(changes))[1]
    refused["delete"] = _attempt(connection, table.delete().where(*condition))[1]
    for inserted in (whole, least):
        with _taken_back(connection):
            # The row makes room for one that is just like it, whatever refers to it.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(table.delete().where(*condition))
            connection.execute(text("SET LOCAL session_replication_role = origin"))
            refused["insert"] = (
                refused.get("insert") or _attempt(connection, table.insert().values(inserted))[1]
            )
    return {what: said for what, said in refused.items() if said}


def _promises(connection: Connection, table: Table, columns: list[Column[Any]], failures: Failures) -> None:
    """Find what the classes rely on and the database doesn't keep any more."""
    name = {"schema": table.schema, "name": table.name}
    nullable = set(connection.scalars(NULLABLE, name))
    for column in columns:
        if not column.nullable and column.name in nullable:
            failures[table.fullname, "null", column.name] = "the column may be NULL"
    unique = {frozenset(names) for names in connection.scalars(UNIQUE, name)}
    foreign = {frozenset(names) for names in connection.scalars(FOREIGN, name)}
    for index in table.indexes:
        names = frozenset(column.name for column in index.columns)
        plain = len(names) == len(index.expressions) and index.dialect_kwargs.get("postgresql_where") is None
        if index.unique and plain and names not in unique:
            failures[table.fullname, "unique", ", ".join(sorted(names))] = "nothing keeps it unique"
    for constraint in table.constraints:
        names = frozenset(column.name for column in getattr(constraint, "columns", ()))
        kind = constraint.__visit_name__
        if kind in {"unique_constraint", "primary_key_constraint"} and names and names not in unique:
            failures[table.fullname, "unique", ", ".join(sorted(names))] = "nothing keeps it unique"
        if kind == "foreign_key_constraint" and names not in foreign:
            failures[table.fullname, "reference", ", ".join(sorted(names))] = "nothing keeps the reference"


@contextmanager
def _taken_back(connection: Connection) -> Iterator[None]:
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def main(folder: str) -> None:
    """Answer the lines of standard input, with the classes of the folder."""
    sys.path[0] = folder
    # What the classes' modules print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    base: Any = importlib.import_module("db.tables").Base
    tables = mapped(base.metadata, base.registry.mappers)
    print(json.dumps(sorted(table.fullname for table in tables)), file=answers, flush=True)
    for line in sys.stdin:
        url, only = json.loads(line)
        engine = create_engine(url, poolclass=NullPool, connect_args={"application_name": "old code"})
        with engine.connect() as connection:
            failures = exercise(connection, tables, only)
        print(json.dumps([[*key, said] for key, said in failures.items()]), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
