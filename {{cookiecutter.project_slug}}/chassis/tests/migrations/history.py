"""A history of revisions of its own, made by autogenerate in this process, for tests of what it writes."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from chassis.database.base import NAMING_CONVENTION
from chassis.migrations.declared import describe_classes, describe_database
from chassis.migrations.differences import differences
from chassis.migrations.ownership import Ownership
from chassis.settings import WORKSPACE

MIGRATIONS = WORKSPACE / "db" / "migrations"


def new_metadata() -> MetaData:
    return MetaData(naming_convention=NAMING_CONVENTION)


class History:
    """Revisions in a folder, run by the workspace's own env.py on an empty database."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.connection = connection
        self.versions = copy_environment(folder)
        self.config = config_of(folder)
        self.config.attributes["connection"] = connection
        self.metadata = new_metadata()

    def run(self, name: str, *arguments: Any, **options: Any) -> None:
        """Run a command of Alembic, by the classes of `metadata`."""
        with as_tables(self.metadata):
            getattr(command, name)(self.config, *arguments, **options)
        # Alembic takes a transaction that is open, be it one that only read, for the caller's own.
        self.connection.commit()

    def autogenerate(self) -> str:
        """Write a revision and return its text, "" where there is nothing to write."""
        before = set(self.versions.glob("*.py"))
        with as_tables(self.metadata):
            scripts = command.revision(self.config, "change", autogenerate=True)
        self.connection.rollback()
        new = sorted(set(self.versions.glob("*.py")) - before)
        if not new:
            return ""
        assert scripts
        written = new[0].read_text(encoding="utf-8")
        upgrade = written.partition("def upgrade")[2].partition("def downgrade")[0]
        if "    pass\n" in upgrade and "op." not in upgrade:
            new[0].unlink()
            return ""
        return written

    @property
    def ownership(self) -> Ownership:
        return Ownership.from_config(self.metadata, ScriptDirectory.from_config(self.config), self.config)

    def differences(self) -> list[str]:
        """What PostgreSQL prints differently of the database and of the classes."""
        database = describe_database(self.connection, self.ownership.schemas)
        found = differences(
            database, describe_classes(self.connection, self.metadata, database), self.ownership
        )
        self.connection.rollback()
        return [difference.told() for difference in found]

    def outline(self) -> Any:
        """The tables with their columns and the names of what is on them, and the enum types."""
        described = describe_database(self.connection, [None, "other"])
        self.connection.rollback()
        # Where a column that was dropped comes back, it is the last: an order is no form.
        tables = {
            key: (dict(sorted(t.columns.items())), sorted(t.parts)) for key, t in described.tables.items()
        }
        return {key: found for key, found in tables.items() if key[1] != "alembic_version"}, described.enums

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.connection.exec_driver_sql(statement)
        self.connection.commit()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        found = [tuple(row) for row in self.connection.execute(text(query))]
        self.connection.rollback()
        return found


def config_of(folder: Path) -> Config:
    """Return the configuration of Alembic for the revisions in this folder."""
    config = Config(stdout=StringIO())
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def copy_environment(folder: Path) -> Path:
    """Put the workspace's own env.py into a folder, and return the one for the revisions."""
    versions = folder / "versions"
    versions.mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        (folder / name).write_text((MIGRATIONS / name).read_text(encoding="utf-8"), encoding="utf-8")
    return versions


@contextmanager
def as_tables(metadata: MetaData) -> Iterator[None]:
    """Let env.py find these classes where it looks for those of the workspace."""
    before: Mapping[str, ModuleType | None] = {name: sys.modules.get(name) for name in ("db", "db.tables")}
    module: Any = ModuleType("db.tables")
    module.Base = SimpleNamespace(metadata=metadata)
    package: Any = ModuleType("db")
    package.tables = module
    sys.modules |= {"db": package, "db.tables": module}
    try:
        yield
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known


def empty(connection: Connection, schemas: Sequence[str] = ("other", "audit")) -> None:
    """Empty the database, apart from what extensions brought."""
    connection.rollback()
    for schema in schemas:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    connection.exec_driver_sql("DROP SCHEMA public CASCADE")
    connection.exec_driver_sql("CREATE SCHEMA public")
    connection.commit()
