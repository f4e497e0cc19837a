"""Whether the service can do its work: the database answers, and is where the code expects it to be."""

import asyncio
import logging

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.settings import WORKSPACE

SECONDS = 3
UPGRADE = "Run: alembic -c db/alembic.ini upgrade head"

logger = logging.getLogger(__name__)


class Readiness:
    """Asks the database for its revision, which is one short query."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Read the code's heads, once: they can't change while the process runs."""
        self._engine = engine
        config = Config(WORKSPACE / "db" / "alembic.ini")
        self._heads = frozenset(ScriptDirectory.from_config(config).get_heads())

    async def problem(self) -> str:
        """Return what keeps the service from working, or "" if nothing does."""
        try:
            async with asyncio.timeout(SECONDS), self._engine.connect() as connection:
                rows = await connection.execute(text("SELECT version_num FROM alembic_version"))
                revisions = frozenset(rows.scalars())
        except ProgrammingError:
            return f"The database has no tables yet. {UPGRADE}"
        except TimeoutError:
            return f"The database does not answer within {SECONDS} seconds."
        except SQLAlchemyError as error:
            # The driver's words may name hosts and users, so they go to the log only.
            logger.warning("The database can't be reached: %s", error)
            return "The database can't be reached."
        if revisions == self._heads:
            return ""
        return f"The database is at {_names(revisions)}, this code needs {_names(self._heads)}. {UPGRADE}"


def _names(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"
