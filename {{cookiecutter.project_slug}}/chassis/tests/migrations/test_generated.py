"""Random tables, random edits of them, rows in between: whatever comes, autogenerate makes the catalogues equal or says why not."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.operations import MigrateOperation
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.exc import DBAPIError

from chassis.database.engine import sync_engine
from chassis.migrations import autogenerate, rendering
from chassis.migrations.declared import describe_classes, describe_database
from chassis.migrations.differences import differences
from chassis.migrations.ownership import Ownership
from chassis.tests.migrations.history import empty, new_metadata

# In a full run, such as the template's own, many more.
EXAMPLES = int(os.environ.get("AUTOGENERATE_EXAMPLES", "60"))
TABLES, COLUMNS = ("alpha", "beta", "Gamma"), ("one", "two", "Three", "four")
# Each type with values that a row may have, and defaults.
TYPES: list[tuple[Callable[[], Any], list[str], list[Any]]] = [
    (sa.Text, ["'a'", "'50%'", "''"], ["x", "it's", "50%", sa.text(r"'a\:b'")]),
    (lambda: sa.String(5), ["'abc'"], ["x"]),
    (lambda: sa.String(50), ["'abc def ghi'"], ["x"]),
    (sa.Integer, ["1", "7", "-3"], ["0", sa.text("1 + 1")]),
    (sa.BigInteger, ["5000000000", "1"], ["0"]),
    (lambda: sa.Numeric(8, 2), ["1.25"], ["1.5"]),
    (sa.Boolean, ["true", "false"], [sa.true()]),
    (sa.Uuid, ["'a0000000-0000-0000-0000-000000000001'"], [sa.text("gen_random_uuid()")]),
    (lambda: sa.DateTime(timezone=True), ["'2026-01-01'"], [sa.func.now()]),
    (pg.JSONB, ["'{}'"], [sa.text("'{}'::jsonb")]),
    (sa.JSON, ["'{\"a\": 1}'"], ["{}"]),
    (lambda: pg.ARRAY(sa.Text), ["'{a,b}'"], [sa.text("'{}'::text[]")]),
    (lambda: sa.Enum("a", "b", name="mood"), ["'a'"], ["a"]),
    (lambda: sa.Enum("red", "it's", name="colour"), ["'red'"], ["red"]),
]
MOODS = (("a", "b"), ("a", "b", "c"), ("z", "a", "b"), ("b", "a"))


@dataclass(frozen=True)
class AColumn:
    name: str
    type: int
    default: int | None
    nullable: bool
    comment: str | None

    def make(self, moods: tuple[str, ...]) -> sa.Column[Any]:
        kind, _, defaults = TYPES[self.type]
        made = kind()
        if isinstance(made, sa.Enum) and made.name == "mood":
            made = sa.Enum(*moods, name="mood")
        default = None if self.default is None else defaults[self.default % len(defaults)]
        return sa.Column(
            self.name, made, server_default=default, nullable=self.nullable, comment=self.comment
        )


@dataclass(frozen=True)
class ATable:
    name: str
    columns: tuple[AColumn, ...]
    index: tuple[str, ...]
    unique: tuple[str, ...]
    partial: bool
    check: str | None
    parent: str | None
    comment: str | None


@dataclass(frozen=True)
class ASchema:
    tables: tuple[ATable, ...]
    moods: tuple[str, ...]

    def metadata(self) -> sa.MetaData:
        metadata = new_metadata()
        there = {table.name for table in self.tables}
        for table in self.tables:
            names = {column.name for column in table.columns}
            items: list[Any] = [column.make(self.moods) for column in table.columns]
            kinds = {column.name: TYPES[column.type][0]() for column in table.columns}
            # JSON has no order, so neither an index nor a constraint can be on it.
            plain = [name for name in table.index if name in names and type(kinds[name]) is not sa.JSON]
            if plain:
                where: Any = {"postgresql_where": sa.text("id > 5 AND id % 2 = 0")} if table.partial else {}
                items.append(sa.Index(f"ix_{table.name}", *plain, **where))
            if unique := [
                name for name in table.unique if name in names and type(kinds[name]) is not sa.JSON
            ]:
                items.append(sa.UniqueConstraint(*unique, name=f"uq_{table.name}"))
            if table.check:
                items.append(sa.CheckConstraint(table.check, name="id"))
            if table.parent in there:
                items.append(sa.Column("parent_id", sa.ForeignKey(f"{table.parent}.id"), index=True))
            sa.Table(
                table.name,
                metadata,
                sa.Column("id", sa.Integer, primary_key=True),
                *items,
                comment=table.comment,
            )
        return metadata

    def rows(self) -> Iterator[str]:
        for table in self.tables:
            for number in (6, 8):
                values = {
                    column.name: TYPES[column.type][1][number % len(TYPES[column.type][1])]
                    for column in table.columns
                }
                names = ", ".join(f'"{name}"' for name in ("id", *values))
                yield f'INSERT INTO "{table.name}" ({names}) VALUES ({", ".join((str(number), *values.values()))})'


def columns_of() -> st.SearchStrategy[tuple[AColumn, ...]]:
    column = st.builds(
        AColumn,
        name=st.sampled_from(COLUMNS),
        type=st.integers(0, len(TYPES) - 1),
        default=st.none() | st.integers(0, 3),
        nullable=st.booleans(),
        comment=st.sampled_from((None, None, "50% of 'it': :x")),
    )
    return st.lists(column, max_size=4, unique_by=lambda made: made.name).map(tuple)


SCHEMAS = st.builds(
    ASchema,
    tables=st.lists(
        st.builds(
            ATable,
            name=st.sampled_from(TABLES),
            columns=columns_of(),
            index=st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True).map(tuple),
            unique=st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True).map(tuple),
            partial=st.booleans(),
            check=st.sampled_from((None, "id <> 99", "id % 100 < 99", r"id\:\:text <> ':x'")),
            parent=st.sampled_from((None, *TABLES)),
            comment=st.sampled_from((None, "it's")),
        ),
        max_size=3,
        unique_by=lambda made: made.name,
    ).map(tuple),
    moods=st.sampled_from(MOODS),
)


@pytest.fixture(scope="module")
def server(new_database: Callable[[], URL]) -> Iterator[Connection]:
    engine = sync_engine(new_database())
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A history that made all the tables there may be, so that they are ours when their classes are gone."""
    path = Path(tmp_path_factory.mktemp("history")) / "all.py"
    lines = [f"    op.create_table({name!r})" for name in TABLES]
    path.write_text(
        "\n".join(["def upgrade():", *lines, "    sa.Enum(name='mood')", "    sa.Enum(name='colour')"]),
        encoding="utf-8",
    )
    return SimpleNamespace(walk_revisions=lambda: [SimpleNamespace(path=path)])


class Evolution:
    """A database that follows classes, by the operations that autogenerate finds."""

    def __init__(self, connection: Connection, script: Any) -> None:
        self.connection = connection
        self.script = script

    def autogenerate(self, metadata: sa.MetaData) -> tuple[MigrationContext, Any, str]:
        ownership = Ownership(metadata, self.script)
        options = {
            "target_metadata": metadata,
            "autogenerate_plugins": autogenerate.PLUGINS,
            "render_item": autogenerate.render_item,
        }
        context = MigrationContext.configure(self.connection, opts=options)
        with redirect_stdout(io.StringIO()) as told:
            script = produce_migrations(context, metadata)
            autogenerate.by_catalogue(metadata, ownership)(context, None, [script])
        self.connection.rollback()
        return context, script, told.getvalue()

    def run(self, context: MigrationContext, operations: list[MigrateOperation]) -> None:
        rendering.run(operations, context)
        self.connection.commit()

    def differences(self, metadata: sa.MetaData) -> list[str]:
        ownership = Ownership(metadata, self.script)
        database = describe_database(self.connection, ownership.schemas)
        found = differences(database, describe_classes(self.connection, metadata, database), ownership)
        self.connection.rollback()
        return [difference.told() for difference in found]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(before=SCHEMAS, after=SCHEMAS)
def test_any_edit(server: Connection, script: Any, before: ASchema, after: ASchema) -> None:
    empty(server)
    evolution = Evolution(server, script)
    first, second = before.metadata(), after.metadata()
    context, written, _ = evolution.autogenerate(first)
    evolution.run(context, written.upgrade_ops.ops)
    assert evolution.differences(first) == []
    for row in before.rows():
        try:
            server.exec_driver_sql(row.replace("%", "%%"))
            server.commit()
        except DBAPIError:  # what the random constraints don't let in
            server.rollback()
    refused = ""
    try:
        context, written, told = evolution.autogenerate(second)
    except CommandError as error:
        refused = str(error)
    server.rollback()
    if refused:
        assert "postgresql_using" in refused or "by hand" in refused
        return
    assert "leaves it to you" not in told
    if "the upgrade fails" in told:
        return
    evolution.run(context, written.upgrade_ops.ops)
    assert evolution.differences(second) == []
    assert evolution.autogenerate(second)[1].upgrade_ops.is_empty()
    if "the way back fails" not in told:
        evolution.run(context, written.downgrade_ops.ops)
        assert evolution.differences(first) == []
