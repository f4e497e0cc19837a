"""The environment in which Alembic runs the revisions: which database, which tables, what counts.

`alembic -c db/alembic.ini …` is the one way in, for people, the entrypoint and CI; each of them
runs this file. A caller that holds a connection of its own hands it over in `config.attributes`.
"""

from functools import cache
from logging.config import fileConfig
from pathlib import Path
from typing import Any

import alembic_postgresql_enum
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import OperationalError

from db.migrations import directives, enums
from db.migrations.ownership import DEFAULT_SCHEMA, Ownership, find_ownership
from db.settings import SettingsError, database_url
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
    return find_ownership(Base.metadata, reversed(revisions), foreign)


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
    alembic_postgresql_enum.Config(include_name=lambda name: name in owned().enums)
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
        **target,
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate_database() -> None:
    """Run on the caller's connection, or else on the database that the environment names."""
    connection: Connection | None = config.attributes.get("connection")
    if connection is not None:
        migrate(connection=connection)
        return
    if config.config_file_name:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    try:
        engine = create_engine(
            database_url(), poolclass=pool.NullPool, connect_args={"application_name": "alembic"}
        )
        connection = engine.connect()
    except SettingsError as error:
        raise CommandError(str(error)) from None
    except OperationalError as error:
        raise CommandError(f"The database can't be reached: {error.orig}") from None
    with connection:
        migrate(connection=connection)


if context.is_offline_mode():
    migrate(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
else:
    migrate_database()
