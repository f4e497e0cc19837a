"""What the classes would make: their tables, made for a moment beside the real ones, described, and rolled back."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from alembic.util import CommandError
from psycopg.errors import InsufficientPrivilege, UndefinedObject
from sqlalchemy import ARRAY, Connection, Enum, MetaData, text
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import SQLAlchemyError

from chassis.database import plain
from chassis.migrations.catalogue import Catalogue, Column, Key, Part, Table, describe
from chassis.migrations.rendering import concrete_type

SCRATCH, PROBE, TARGET = "alembic_scratch_", "alembic_probe", "alembic_target"
PATH = text("SELECT string_agg(quote_ident(s), ', ') FROM unnest(current_schemas(false)) s")
NEEDED = (
    "To compare, the classes' tables are made in a schema of their own for a moment, and rolled back. The role "
    'needs the right to that: GRANT CREATE ON DATABASE "{database}" TO "{role}";'
)

# A type or an operator class that isn't there.
EXTENSION = (
    "\nIf an extension brings it, install that first, in a revision of its own: "
    'op.execute("CREATE EXTENSION IF NOT EXISTS …")'
)


def default_schema(connection: Connection) -> str:
    """Return the schema in which names without one are made.

    Raises:
        CommandError: where there is none.
    """
    name: str | None = connection.scalar(text("SELECT current_schema()"))
    if name is None:
        raise CommandError(
            "The search path names no schema that is there: create one, or change it (ALTER ROLE … SET search_path)."
        )
    return name


def describe_database(connection: Connection, schemas: Iterable[str | None]) -> Catalogue:
    """Describe what is in these schemas, and in the default one."""
    default = default_schema(connection)
    return describe(connection, {schema or default: schema for schema in {None, *schemas}})


def describe_classes(
    connection: Connection, metadata: MetaData, beside: Catalogue | None = None
) -> Catalogue:
    """Describe what `create_all` makes of the classes; of what it made nothing stays.

    What differs from the description `beside` only by how often PostgreSQL has printed and read it is taken over
    from there: not all that it prints comes out the same when it is read again, as after a restore from a dump.

    Raises:
        CommandError: where the server refuses the tables of the classes, or the role may not make them.
    """
    scratch = {schema: f"{SCRATCH}{number}" for number, schema in enumerate(_schemas(metadata))}
    quote = connection.dialect.identifier_preparer.quote

    def spell(printed: str) -> str:
        for schema, name in scratch.items():
            printed = printed.replace(f"{name}.", f"{quote(schema)}." if schema else "")
        return printed

    def describe_scratch() -> Catalogue:
        return describe(connection, {name: schema for schema, name in scratch.items()}, spell)

    with _rolled_back(connection), _types_of_scratch(connection, metadata, scratch):
        try:
            for name in scratch.values():
                connection.execute(text(f"CREATE SCHEMA {name}"))
            path = connection.scalar(PATH)
            connection.execute(text(f"SET LOCAL search_path = {scratch[None]}{', ' + path if path else ''}"))
            # Those of the default schema go to the first of the path.
            others = {schema: name for schema, name in scratch.items() if schema}
            metadata.create_all(connection.execution_options(schema_translate_map=others), checkfirst=False)
            classes = describe_scratch()
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None)
            if isinstance(cause, InsufficientPrivilege):
                names = {"database": connection.engine.url.database, "role": connection.engine.url.username}
                raise CommandError(NEEDED.format(**names)) from None
            said = spell(str(cause or error)).strip()
            hint = EXTENSION if isinstance(cause, UndefinedObject) else ""
            raise CommandError(f"PostgreSQL refuses the tables of the classes: {said}{hint}") from error
        finally:
            connection.execution_options(schema_translate_map={})
        if beside is not None:
            take_over_same(connection, beside, classes, scratch, describe_scratch)
    return classes


def take_over_same(
    connection: Connection,
    database: Catalogue,
    classes: Catalogue,
    schemas: Mapping[str | None, Any],
    describe_again: Callable[[], Catalogue],
) -> None:
    """Let PostgreSQL read what it printed of both sides, and take over what it then prints alike.

    Args:
        connection: to the database.
        database: what to take over from.
        classes: what is changed: the description of the tables on which it is tried.
        schemas: for each schema of the descriptions, the one that those tables are in.
        describe_again: describes those tables as they then are.
    """

    def printed(key: Key, statements: Sequence[str], find: Callable[[Table], object]) -> object:
        """What PostgreSQL prints after these statements, or None where it refuses them."""
        target = f"{schemas[key[0]]}.{plain.quote(key[1])}"
        with _rolled_back(connection):
            try:
                for statement in statements:
                    plain.run(connection, statement.replace(TARGET, target, 1))
            except SQLAlchemyError:
                return None
            return find(describe_again().tables[key])

    def same(key: Key, sides: Sequence[Sequence[str]], find: Callable[[Table], object]) -> bool:
        one, other = (printed(key, statements, find) for statements in sides)
        return one is not None and one == other

    for key in database.tables.keys() & classes.tables.keys():
        had, declared = database.tables[key], classes.tables[key]
        for name, part in declared.parts.items():
            before = had.parts.get(name)
            if before is None or before[:2] == part[:2] or before.kind != part.kind or part.kind not in "cix":
                continue
            sides = [_made_again(key, name, side, schemas) for side in (before, part)]
            if same(key, sides, partial(_definition, name)):
                declared.parts[name] = before
        for name, column in declared.columns.items():
            there = had.columns.get(name)
            if there is None or there.default == column.default or not (there.default and column.default):
                continue
            probes = [[_probe(side)] for side in (there, column)]
            alike = (there.type, there.generated) == (column.type, column.generated)
            if alike and same(key, probes, _default_of_probe):
                declared.columns[name] = column._replace(default=there.default)


def _definition(name: str, table: Table) -> str:
    return table.parts[name].definition


def _default_of_probe(table: Table) -> str:
    return table.columns[PROBE].default


def _made_again(key: Key, name: str, part: Part, schemas: Mapping[str | None, Any]) -> list[str]:
    """Return the statements that make a constraint or an index anew on the table that stands for TARGET."""
    if part.kind != "i":
        alter = f"ALTER TABLE {TARGET}"
        return [
            f"{alter} DROP CONSTRAINT {plain.quote(name)}",
            f"{alter} ADD CONSTRAINT {plain.quote(name)} {part.definition}",
        ]
    head, _, rest = part.definition.partition(" ON ")
    _, _, form = rest.partition(" USING ")
    return [f"DROP INDEX {schemas[key[0]]}.{plain.quote(name)}", f"{head} ON {TARGET} USING {form}"]


def _probe(column: Column) -> str:
    words = (
        f"GENERATED ALWAYS AS ({column.default}) STORED" if column.generated else f"DEFAULT {column.default}"
    )
    return f"ALTER TABLE {TARGET} ADD COLUMN {PROBE} {column.type} {words}"


def _schemas(metadata: MetaData) -> list[str | None]:
    """The schemas of the classes' tables, the default one first."""
    return [None, *sorted({table.schema for table in metadata.tables.values() if table.schema})]


@contextmanager
def _types_of_scratch(
    connection: Connection, metadata: MetaData, scratch: Mapping[str | None, str]
) -> Iterator[None]:
    """Let a cast to `billing.plan_kind`, in a default or a check, mean the enum type that the classes make."""
    quote = connection.dialect.identifier_preparer.quote
    names: dict[str, str] = {}
    for column in (column for table in metadata.tables.values() for column in table.columns):
        kind = concrete_type(column.type, connection.dialect)
        if isinstance(kind, ARRAY):
            kind = concrete_type(kind.item_type, connection.dialect)
        if isinstance(kind, Enum) and kind.name and kind.schema and kind.schema in scratch:
            names[f"{quote(kind.schema)}.{quote(kind.name)}"] = f"{scratch[kind.schema]}.{quote(kind.name)}"
    cast = re.compile(rf'(?<=::)(?:{"|".join(map(re.escape, names))})(?![\w"])')

    def spell(_: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> tuple[str, Any]:
        return cast.sub(lambda found: names[found[0]], statement) if names else statement, parameters

    listen(connection, "before_cursor_execute", spell, retval=True)
    try:
        yield
    finally:
        remove(connection, "before_cursor_execute", spell)


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Undo all that the block does, and nothing else."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
