"""The table in which the database remembers the revision that it is at.

It is Alembic's `alembic_version`, unless `version_table` and `version_table_schema` in `db/alembic.ini` say otherwise:
where another project migrates the same database, each needs one of its own.
https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext.configure
"""

import re
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chassis.settings import ALEMBIC_INI, SettingsError

DEFAULT = "alembic_version"
NAME, SCHEMA = "version_table", "version_table_schema"
# What needs no thought about quoting anywhere, in at most as many bytes as PostgreSQL keeps of a name.
FORM = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class VersionTable:
    """The table's name, and its schema unless that is the default one."""

    name: str = DEFAULT
    schema: str | None = None

    @classmethod
    def read(cls, ini: Path = ALEMBIC_INI) -> Self:
        """Take what `db/alembic.ini` says.

        Raises:
            SettingsError: where a name can't be used.
        """
        parser = ConfigParser({"here": "."}, interpolation=None)
        try:
            parser.read(ini, encoding="utf-8")
        except Error as error:
            raise SettingsError(f"{ini} can't be read: {error}") from error
        found = {name: parser.get("alembic", name, fallback="").strip() for name in (NAME, SCHEMA)}
        for name, value in found.items():
            if value and not FORM.fullmatch(value):
                raise SettingsError(
                    f"{name} in db/alembic.ini is {value!r}: it takes lower-case letters, digits and underscores, "
                    "63 at most, and begins with a letter."
                )
        return cls(found[NAME] or DEFAULT, found[SCHEMA] or None)

    def __str__(self) -> str:
        """The name as it stands in SQL and in messages."""
        return f"{self.schema}.{self.name}" if self.schema else self.name
