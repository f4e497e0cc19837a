"""The environment in which Alembic runs the revisions: which database, which tables, what counts.

`alembic -c db/alembic.ini …` is the one way in, for people, the entrypoint and CI; each of them
runs this file. A caller hands over a connection or an engine of its own in `config.attributes`.
"""

from functools import cache
from logging.config import fileConfig
from pathlib import Path
from typing import Any

import alembic_postgresql_enum
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Engine

from db.migrations import directives, enums, runner
from db.migrations.ownership import DEFAULT_SCHEMA, Ownership
from db.tables import Base

config = context.config


@cache
def owned() -> Ownership:
    """What is ours. Only the commands that compare ask, so the others don't pay for the answer."""
    if any(table.schema == DEFAULT_SCHEMA for table in Base.metadata.tables.values()):
        raise CommandError(
            f"A class in db/tables names the schema {DEFAULT_SCHEMA!r}. Leave it out: it is the default, "
            "and with its name Alembic would create the table again in each new revision."
        )
    revisions = [Path(revision.path) for revision in context.script.walk_revisions()]
    foreign = config.get_main_option("foreign_tables") or ""
    return Ownership(Base.metadata, reversed(revisions), foreign)


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Whether to look at this schema or table of the database at all."""
    if type_ == "schema":
        return owned().owns_schema(name)
    if type_ == "table":
        return owned().owns_table(parent_names["schema_name"], name or "")
    return True


def include_object(item: Any, name: str | None, type_: str, reflected: bool, other: Any) -> bool:
    """Whether to compare this table, which leaves out those declared here but made elsewhere."""
    return type_ != "table" or owned().owns_table(item.schema, name or "")


alembic_postgresql_enum.set_configuration(
    alembic_postgresql_enum.Config(include_name=lambda name: owned().owns_enum(name))
)


def migrate(**target: Any) -> None:
    """Run the command's revisions on the `target`, a connection or just a dialect."""
    context.configure(
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=include_name,
        include_object=include_object,
        compare_type=True,
        compare_server_default=True,
        autogenerate_plugins=["alembic.autogenerate.*", enums.PLUGIN],
        process_revision_directives=directives.adjust,
        transaction_per_migration=True,
        **target,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    migrate(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
elif isinstance(given := config.attributes.get("connection"), Engine):
    with given.connect() as connection:
        migrate(connection=connection)
elif given is not None:
    migrate(connection=given)
else:
    if config.config_file_name:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    arguments = context.get_x_argument(as_dictionary=True)
    # Without a command line, a program has called Alembic: all care is taken, whatever it does.
    command = config.cmd_opts.cmd[0].__name__ if config.cmd_opts else "migration"
    if command == "upgrade" and config.cmd_opts and config.cmd_opts.revision not in {"head", "heads"}:
        command = "upgrade to a revision"
    runner.run(command, context.script, arguments, lambda connection: migrate(connection=connection))
