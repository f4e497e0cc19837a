"""The environment in which Alembic runs the revisions, for each `alembic -c db/alembic.ini …`.

How a command is made safe beside other containers and beside traffic is in `chassis.migrations`.
"""

from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection, Engine

from chassis.migrations import autogenerate, runner, version_table
from chassis.migrations.ownership import Ownership
from db.tables import Base

config = context.config
target_metadata = Base.metadata
# Which tables are this service's: the others in the database are left alone.
ownership = Ownership.from_config(target_metadata, context.script, config)


def run_migrations_offline() -> None:
    """Write the SQL of the revisions instead of running it: `--sql`."""
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        target_metadata=target_metadata,
        literal_binds=True,
        transaction_per_migration=True,
        **version_table.options(config),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations(connection: Connection) -> None:
    """Run the command on a connection."""
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        autogenerate_plugins=autogenerate.PLUGINS,
        process_revision_directives=autogenerate.by_catalogue(target_metadata, ownership),
        render_item=autogenerate.render_item,
        transaction_per_migration=True,
        **version_table.options(config),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online() -> None:
    """Run the command on the database of the environment, or on the one that a program hands over."""
    match config.attributes.get("connection"):
        case None:
            if config.config_file_name:
                fileConfig(config.config_file_name, disable_existing_loggers=False)
            arguments = context.get_x_argument(as_dictionary=True)
            runner.run(config, context.script, arguments, run_migrations)
        case Engine() as engine:
            with engine.connect() as connection:
                run_migrations(connection)
        case connection:
            run_migrations(connection)


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
