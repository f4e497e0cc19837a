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
from functools import cached_property
from pathlib import Path

from sqlalchemy import Enum, MetaData
from sqlalchemy.types import ARRAY, TypeEngine

DEFAULT_SCHEMA = "public"


@dataclass
class Names:
    """Names of tables, as (schema, name), and of enum types."""

    tables: set[tuple[str, str]] = field(default_factory=set)
    enums: set[str] = field(default_factory=set)


class Ownership:
    """What is ours. The revisions are read only when a name comes up that the classes don't know."""

    def __init__(self, metadata: MetaData, revisions: Iterable[Path], foreign: str = "") -> None:
        """Take down the names.

        Args:
            metadata: of the table classes.
            revisions: the files of all revisions, oldest first.
            foreign: patterns as in `foreign_tables` of `db/alembic.ini`, separated by white space.
        """
        self._foreign = foreign.split()
        self._revisions = revisions
        self._declared = Names()
        for table in metadata.tables.values():
            schema = table.schema or DEFAULT_SCHEMA
            if not self._is_foreign(schema, table.name):
                self._declared.tables.add((schema, table.name))
                self._declared.enums.update(
                    name for column in table.columns for name in _enum_names(column.type)
                )
        self._schemas = {schema for schema, _ in self._declared.tables}

    @cached_property
    def _made(self) -> Names:
        """What the revisions made and didn't drop."""
        made = Names()
        for path in self._revisions:
            for call in _calls_in_upgrade(ast.parse(path.read_text(encoding="utf-8"))):
                _follow(made, call)
        return made

    def _is_foreign(self, schema: str, name: str) -> bool:
        return any(fnmatchcase(f"{schema}.{name}", pattern) for pattern in self._foreign)

    def owns_table(self, schema: str | None, name: str) -> bool:
        """Whether the table is ours; a `schema` of None is the default one."""
        key = (schema or DEFAULT_SCHEMA, name)
        return key in self._declared.tables or (not self._is_foreign(*key) and key in self._made.tables)

    def owns_schema(self, schema: str | None) -> bool:
        """Whether any table of ours is in the schema, so that it is worth looking into."""
        schema = schema or DEFAULT_SCHEMA
        return schema in self._schemas or any(schema == made for made, _ in self._made.tables)

    def owns_enum(self, name: str) -> bool:
        """Whether the enum type is ours."""
        return name in self._declared.enums or name in self._made.enums


def _calls_in_upgrade(module: ast.Module) -> Iterator[ast.Call]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade":
            calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
            yield from sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _follow(owned: Names, call: ast.Call) -> None:
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
