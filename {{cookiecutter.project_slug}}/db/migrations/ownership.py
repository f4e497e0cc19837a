"""Which tables and enum types are ours: autogenerate compares those and leaves all others alone.

Databases are shared: an extension (PostGIS' `spatial_ref_sys`), a library (a job store, an agent
framework) or another service may keep tables beside ours. A table in the database is ours if

- a class in `db/tables` declares it, or
- the last revision of ours that speaks of it created it, or renamed something to it. Its class was
  then removed from `db/tables`, and autogenerate is right to drop it.

Any other is somebody else's. So is whatever `foreign_tables` in `db/alembic.ini` names, always.
What revisions created is read from their source, since a database keeps no record of it: plain
`op.create_table("name", …)` calls count, SQL text handed to `op.execute` doesn't.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sqlalchemy import Enum, MetaData
from sqlalchemy.types import ARRAY, TypeEngine

DEFAULT_SCHEMA = "public"


@dataclass
class Ownership:
    """The names that are ours, tables as (schema, name)."""

    tables: set[tuple[str, str]] = field(default_factory=set)
    enums: set[str] = field(default_factory=set)
    foreign: tuple[str, ...] = ()

    def owns_table(self, schema: str | None, name: str) -> bool:
        """Whether the table is ours; a `schema` of None is the default one."""
        schema = schema or DEFAULT_SCHEMA
        foreign = any(fnmatchcase(f"{schema}.{name}", pattern) for pattern in self.foreign)
        return not foreign and (schema, name) in self.tables

    def owns_schema(self, schema: str | None) -> bool:
        """Whether any table of ours is in the schema, so that it is worth looking into."""
        return (schema or DEFAULT_SCHEMA) in {owned for owned, _ in self.tables}


def find_ownership(metadata: MetaData, revisions: Iterable[Path], foreign: str = "") -> Ownership:
    """Find what is ours from the table classes and from the revisions.

    Args:
        metadata: of the table classes.
        revisions: the files of all revisions, oldest first.
        foreign: patterns as in `foreign_tables` of `db/alembic.ini`, separated by white space.
    """
    owned = Ownership(foreign=tuple(foreign.split()))
    for path in revisions:
        for call in _calls_in_upgrade(ast.parse(path.read_text(encoding="utf-8"))):
            _follow(owned, call)
    for table in metadata.tables.values():
        owned.tables.add((table.schema or DEFAULT_SCHEMA, table.name))
        if owned.owns_table(table.schema, table.name):
            owned.enums.update(name for column in table.columns for name in _enum_names(column.type))
    return owned


def _calls_in_upgrade(module: ast.Module) -> Iterator[ast.Call]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade":
            calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
            yield from sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _follow(owned: Ownership, call: ast.Call) -> None:
    """Change `owned` as the call changes the database."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    names = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    keywords = {
        keyword.arg: keyword.value.value
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }
    schema = keywords.get("schema", DEFAULT_SCHEMA)
    if function == "create_table" and names:
        owned.tables.add((schema, names[0]))
    elif function == "drop_table" and names:
        owned.tables.discard((schema, names[0]))
    elif function == "rename_table" and len(names) > 1:
        owned.tables.discard((schema, names[0]))
        owned.tables.add((schema, names[1]))
    elif function in {"Enum", "ENUM"} and "name" in keywords:
        owned.enums.add(keywords["name"])


def _enum_names(column_type: TypeEngine[object]) -> Iterator[str]:
    if isinstance(column_type, ARRAY):
        column_type = column_type.item_type
    if isinstance(column_type, Enum) and column_type.name:
        yield column_type.name
