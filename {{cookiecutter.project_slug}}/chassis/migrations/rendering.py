"""How types and expressions are written into a revision: such that they mean the same when they are read again."""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy
from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import ARRAY, Dialect, Enum, Table, TypeDecorator
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from chassis.migrations.operations import escaped
from chassis.migrations.version_table import with_its_schema

PLAIN = {"user_module_prefix": None, "render_as_batch": False}


class FaithfulImpl(PostgresqlImpl):
    """Alembic's PostgreSQL, but for texts with percent signs and colons, and the schema of the version table.

    `render_ddl_sql_expr` compiles for the driver, which doubles each percent sign; and what stands in the
    revision goes through `text`, which takes `:name` for a parameter. (No issue of Alembic's names it yet.)
    """

    __dialect__ = "postgresql"

    def render_ddl_sql_expr(self, expr: ClauseElement, *args: Any, **options: Any) -> str:
        """Return the expression as the revision is to write it."""
        written = super().render_ddl_sql_expr(expr, *args, **options).replace("%%", "%")
        # An expression of an index is written as literal_column, which knows no parameters.
        return written if options.get("is_index") else escaped(written)

    def version_table_impl(self, **how: Any) -> Table:
        """Describe the version table. Alembic's own hook for dialects."""
        return with_its_schema(super().version_table_impl(**how))


def render_expression(expression: ClauseElement, dialect: Dialect) -> str:
    """Return an expression as `text` reads it."""
    options = {"literal_binds": True, "include_table": False}
    return escaped(str(expression.compile(dialect=dialect, compile_kwargs=options)).replace("%%", "%"))


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write a type, as Alembic's hook of this name: what is the workspace's own as the type that it stands for.

    A revision must still run when the class of a type is gone. A package's types are imported by their module.
    """
    if kind != "type":
        return False
    concrete = concrete_type(item, context.dialect)
    if isinstance(concrete, Enum) and concrete.native_enum:
        context.imports.add("from sqlalchemy.dialects import postgresql")
        labels = "".join(f"{label!r}, " for label in concrete.enums)
        schema = f", schema={concrete.schema!r}" if concrete.schema else ""
        return f"postgresql.ENUM({labels}name={concrete.name!r}{schema}, create_type=False)"
    if isinstance(concrete, ARRAY) and (inner := render_item(kind, concrete.item_type, context)):
        dimensions = f", dimensions={concrete.dimensions}" if concrete.dimensions else ""
        return f"sa.ARRAY({inner}{dimensions})"
    if not _is_known(concrete):
        public = _public_module(type(concrete))
        context.imports.add(f"import {public}")
        return f"{public}.{concrete!r}"
    if concrete is item:
        return False
    return render._repr_type(concrete, context)


def run(operations: Sequence[MigrateOperation], migration: MigrationContext) -> None:
    """Run operations the way a revision does: written as Python, which is then executed."""
    prefixes = {"sqlalchemy_module_prefix": "sa.", "alembic_module_prefix": "op.", "render_item": render_item}
    context = AutogenContext(migration, opts=PLAIN | dict(migration.opts) | prefixes)
    body = "\n".join(line for op in operations for line in render.render_op(context, op))
    names = {"sa": sqlalchemy, "op": Operations(migration)}
    exec("\n".join([*sorted(context.imports), body]), names)  # noqa: S102 -- just what Alembic does with the file


def concrete_type(declared: TypeEngine[Any], dialect: Dialect | None) -> TypeEngine[Any]:
    """Return what a type is on PostgreSQL: without decorators of its own, and of its variants the one for it."""
    while True:
        variant = getattr(declared, "_variant_mapping", {}).get("postgresql")
        if variant is not None:
            declared = variant
        elif isinstance(declared, TypeDecorator) and dialect is not None and not _is_known(declared):
            declared = declared.load_dialect_impl(dialect)
        else:
            return declared


def _is_known(kind: TypeEngine[Any]) -> bool:
    """Whether SQLAlchemy has it, whose own decorators, such as Interval, are what they say."""
    return type(kind).__module__.startswith("sqlalchemy.")


def _public_module(kind: type) -> str:
    """The shortest package that shows the class: its own module may be an implementation's."""
    from importlib import import_module

    parts = kind.__module__.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if getattr(import_module(name), kind.__name__, None) is kind:
            return name
    return kind.__module__
