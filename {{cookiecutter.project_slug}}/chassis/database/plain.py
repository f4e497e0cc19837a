"""SQL that is put together from names and texts of somebody else's, and run as it stands, without parameters."""

from typing import Any

from sqlalchemy import Connection, CursorResult


def run(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run a statement in which % is itself; to the driver it would begin a parameter."""
    return connection.exec_driver_sql(statement.replace("%", "%%"))


def quote(name: str) -> str:
    """Return a name as SQL has it.

    SQLAlchemy's own quoting doubles %, which is right only where parameters are given.
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it, with standard_conforming_strings on, as it is unless somebody asks otherwise."""
    return "'" + text.replace("'", "''") + "'"
