"""Which tables and enum types are ours: autogenerate compares those and leaves all others alone.

Databases are shared: an extension (PostGIS' `spatial_ref_sys`), a library (a job store, an agent
framework) or another service may keep tables beside ours. A table in the database is ours if

- a class in `db/tables` declares it, or
- the last revision of ours that speaks of it created it, or renamed something to it. Its class was
  then removed from `db/tables`, and autogenerate is right to drop it.

Any other is somebody else's. So is whatever `foreign_tables` in `db/alembic.ini` names, always.
What revisions created is read from their source, since a database keeps no record of it: plain
`op.create_table("name", …)` calls count. SQL text handed to `op.execute` makes what no class could: a view,
a partition, or on one of our tables an index, a constraint or a column. Those are left alone too.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Self

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import ARRAY, Dialect, Enum, MetaData
from sqlalchemy.dialects import postgresql

from chassis.migrations.catalogue import Key
from chassis.migrations.rendering import concrete_type

# What the default schema is called in the patterns of `foreign_tables`, and maybe in revisions from before this service.
DEFAULT_SCHEMA = "public"
DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
# Primary keys and EXCLUDE are left out: autogenerate itself writes them as SQL, since Alembic can't.
BY_HAND = re.compile(
    r"\b(?:INDEX|ADD\s+CONSTRAINT|ADD\s+COLUMN|ADD)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?(?:\"([^\"]+)\"|(\w+))"
    r"(?!\s+(?:EXCLUDE|PRIMARY)\b)",
    re.IGNORECASE,
)


@dataclass
class Names:
    """Names of tables, of enum types, and of what SQL put on tables."""

    tables: set[Key] = field(default_factory=set)
    enums: set[str] = field(default_factory=set)
    by_hand: set[str] = field(default_factory=set)
    # All that operations name, so that what SQL only makes anew isn't taken for made by hand.
    named: set[str] = field(default_factory=set)


class Ownership:
    """What is ours."""

    def __init__(
        self, metadata: MetaData, script: ScriptDirectory, foreign: str = "", by_hand: str = ""
    ) -> None:
        """Take what tells the names. It is read when a command compares: the others don't pay for that.

        Args:
            metadata: of the table classes.
            script: the revisions.
            foreign: patterns as in `foreign_tables` of `db/alembic.ini`, separated by white space.
            by_hand: names as in `made_by_hand` of `db/alembic.ini`, separated by white space.
        """
        self._metadata = metadata
        self._script = script
        self._foreign = foreign.split()
        self._by_hand = by_hand.split()

    @classmethod
    def from_config(cls, metadata: MetaData, script: ScriptDirectory, config: Config) -> Self:
        """Take the patterns from `foreign_tables` and `made_by_hand` of `db/alembic.ini`."""
        patterns = (config.get_main_option(name) or "" for name in ("foreign_tables", "made_by_hand"))
        return cls(metadata, script, *patterns)

    def owns_table(self, schema: str | None, name: str) -> bool:
        """Whether the table is ours; a `schema` of None is the default one."""
        key = (schema, name)
        return key in self._declared.tables or (not self._is_foreign(*key) and key in self._made.tables)

    @property
    def schemas(self) -> set[str | None]:
        """The schemas in which any table of ours is."""
        return {schema for schema, _ in self._declared.tables | self._made.tables}

    def owns_enum(self, name: str) -> bool:
        """Whether the enum type is ours."""
        return name in self._declared.enums or name in self._made.enums

    def made_by_hand(self, name: str) -> bool:
        """Whether SQL in a revision, or somebody whom `made_by_hand` speaks of, put this on one of our tables."""
        by_sql = name in self._made.by_hand and name not in self._made.named
        return by_sql or any(fnmatchcase(name, pattern) for pattern in self._by_hand)

    @cached_property
    def _declared(self) -> Names:
        """What the classes declare."""
        declared = Names()
        for table in self._metadata.tables.values():
            if table.schema == DEFAULT_SCHEMA:
                raise CommandError(
                    f"A class in db/tables names the schema {DEFAULT_SCHEMA!r}. Leave it out: it is the default, "
                    "and with its name Alembic would create the table again in each new revision."
                )
            if not self._is_foreign(table.schema, table.name):
                declared.tables.add((table.schema, table.name))
                for column in table.columns:
                    kind = concrete_type(column.type, DIALECT)
                    if isinstance(kind, ARRAY):
                        kind = concrete_type(kind.item_type, DIALECT)
                    if isinstance(kind, Enum) and kind.native_enum and kind.name:
                        declared.enums.add(kind.name)
        return declared

    @cached_property
    def _made(self) -> Names:
        return made_by(self._script)

    def _is_foreign(self, schema: str | None, name: str) -> bool:
        return any(fnmatchcase(f"{schema or DEFAULT_SCHEMA}.{name}", pattern) for pattern in self._foreign)


def made_by(script: ScriptDirectory) -> Names:
    """Return what the revisions made and didn't drop."""
    made = Names()
    for revision in reversed(list(script.walk_revisions())):
        module = ast.parse(Path(revision.path).read_text(encoding="utf-8"))
        for node in _in_order(module):
            if isinstance(node, ast.Call):
                _follow(made, node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                made.by_hand.update(quoted or plain for quoted, plain in BY_HAND.findall(node.value))
                made.named.add(node.value)
    return made


def _in_order(module: ast.Module) -> Iterator[ast.AST]:
    """Yield the calls of the upgrade as they come, and all texts but those of the downgrade."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "downgrade":
            continue
        inner = [part for part in ast.walk(node) if isinstance(part, ast.Call | ast.Constant)]
        yield from sorted(inner, key=lambda part: (part.lineno, part.col_offset))


def _follow(made: Names, call: ast.Call) -> None:
    """Change `made` as the call changes the database."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    names = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    keywords = {
        keyword.arg: keyword.value.value
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }
    schema = None if keywords.get("schema") == DEFAULT_SCHEMA else keywords.get("schema")
    if function == "create_table" and names:
        made.tables.add((schema, names[0]))
    elif function == "drop_table" and names:
        made.tables.discard((schema, names[0]))
    elif function == "rename_table" and len(names) > 1:
        made.tables.discard((schema, names[0]))
        made.tables.add((schema, names[1]))
    elif function in {"Enum", "ENUM"} and "name" in keywords:
        made.enums.add(keywords["name"])
