"""Whether the service can do its work: the database answers, and is where the code expects it to be."""

import asyncio
import logging
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database.version_table import VersionTable
from chassis.migrations import state as states
from chassis.migrations.options import Options
from chassis.settings import ALEMBIC_INI

SECONDS = 3
UPGRADE = "Run: alembic -c db/alembic.ini upgrade head"

logger = logging.getLogger(__name__)


class Readiness:
    """Asks the database for its revision, which is one short query."""

    def __init__(
        self, engine: AsyncEngine, alembic_ini: Path = ALEMBIC_INI, when_ahead: str = Options.when_ahead
    ) -> None:
        """Read the code's revisions, once: they can't change while the process runs.

        `when_ahead` is what to make of a database ahead of the code, as with a migration.
        """
        self._engine = engine
        self._when_ahead = when_ahead
        self._script = ScriptDirectory.from_config(Config(alembic_ini))
        self._table = VersionTable.read(alembic_ini)
        self._heads = frozenset(self._script.get_heads())

    async def check(self) -> tuple[str, str]:
        """Return what keeps the service from working, and what is only worth knowing, "" where nothing is."""
        try:
            async with asyncio.timeout(SECONDS), self._engine.connect() as connection:
                revisions = frozenset((await connection.execute(states.current_of(self._table))).scalars())
                if revisions == self._heads:
                    return "", ""
                lineage = (await connection.execute(states.lineage_of(self._table))).scalar()
                has_tables = (
                    await connection.execute(states.ANY_OF, {"names": states.tables_of(self._script)})
                ).scalar()
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", "") == states.UNDEFINED_TABLE:
                return f"The database has no tables yet. {UPGRADE}", ""
            logger.warning("The revision can't be read: %s", error)
            return f"The service's role may not read the table {self._table}: grant it SELECT.", ""
        except TimeoutError:
            return f"The database does not answer within {SECONDS} seconds.", ""
        except SQLAlchemyError as error:
            # The driver's words may name hosts and users, so they go to the log only.
            logger.warning("The database can't be reached: %s", error)
            return "The database can't be reached.", ""
        state = states.compare(revisions, self._script)
        if not state.unknown and len(self._heads) > 1:
            joined = "Join them: alembic -c db/alembic.ini merge heads"
            return f"This code's revisions have several heads, {_names(self._heads)}. {joined}", ""
        if not state.unknown:
            needed = f"The database is at {_names(revisions)}, this code needs {_names(self._heads)}."
            return f"{needed} {UPGRADE}", ""
        message = states.explain_unknown(
            state, self._script, self._table, lineage=lineage, has_tables=has_tables
        )
        if self._when_ahead == "start":
            return "", message
        return f"{message} {states.WAYS_OUT}", ""


def _names(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"
