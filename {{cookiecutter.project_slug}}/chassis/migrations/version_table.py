"""Alembic's version table under the name and in the schema that `db/alembic.ini` gives it."""

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Table, inspect
from sqlalchemy.event import listen
from sqlalchemy.schema import CreateSchema

from chassis.database.version_table import VersionTable
from chassis.settings import SettingsError


def of(config: Config) -> VersionTable:
    """Return the version table that a configuration names.

    Raises:
        CommandError: where its name can't be used.
    """
    try:
        return VersionTable.read(Path(config.config_file_name or ""))
    except SettingsError as error:
        raise CommandError(str(error)) from None


def options(config: Config) -> dict[str, Any]:
    """Return it as Alembic's `context.configure` takes it."""
    table = of(config)
    return {"version_table": table.name, "version_table_schema": table.schema}


def with_its_schema(table: Table) -> Table:
    """Have the table's schema made before the table is: no revision can do that, as none has run by then."""
    if table.schema:
        listen(table, "before_create", _make_schema)
    return table


def _make_schema(table: Table, connection: Connection, **how: Any) -> None:
    """Make the schema. Where it is there, nothing is asked for that only those may do who can make schemas."""
    is_online = isinstance(connection, Connection)
    if not (is_online and inspect(connection).has_schema(table.schema or "")):
        connection.execute(CreateSchema(table.schema or "", if_not_exists=True))
