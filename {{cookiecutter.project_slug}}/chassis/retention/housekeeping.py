"""Deletes what is older than the settings let it get."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import TextClause, exists, func, text
from sqlalchemy.exc import SQLAlchemyError

from chassis.conversations.tables import Conversation
from chassis.database.engine import Sessions
from chassis.retention import portions
from chassis.retention.settings import RetentionSettings
from chassis.runs.tables import Run, RunStatus

RUNS = text("""
    DELETE FROM runs WHERE id IN (
        SELECT id FROM runs WHERE status <> 'running' AND finished_at < now() - CAST(:age AS interval)
            -- It holds what was decided, as long as another goes on with that.
            AND NOT EXISTS (
                SELECT FROM runs AS next WHERE next.id = runs.continued_by AND next.status = 'running'
            )
        LIMIT :portion FOR UPDATE SKIP LOCKED
    )
""")
DOCUMENTS = text("""
    DELETE FROM documents WHERE source IN (
        SELECT source FROM documents WHERE updated_at < now() - CAST(:age AS interval)
        LIMIT :portion FOR UPDATE SKIP LOCKED
    )
""")
HAS_DOCUMENTS = (Path(__file__).parent.parent / "knowledge").is_dir()

logger = logging.getLogger(__name__)


@asynccontextmanager
async def housekeeping(sessions: Sessions, settings: RetentionSettings) -> AsyncIterator[None]:
    """Do it in the background of the block, unless everything is kept for good."""
    if not settings.is_on:
        yield
        return
    task = asyncio.create_task(_keep_tidying(sessions, settings), name="housekeeping")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_tidying(sessions: Sessions, settings: RetentionSettings) -> None:
    # Not all replicas at once; where two are about the same, each does a part of it.
    await asyncio.sleep(random.uniform(0, min(settings.interval_seconds, 60)))  # noqa: S311 -- no secret
    while True:
        try:
            await tidy(sessions, settings)
        except SQLAlchemyError as error:
            logger.warning("The database failed: %s", getattr(error, "orig", None) or error)
        except Exception:
            logger.exception("The housekeeping failed")
        await asyncio.sleep(settings.interval_seconds)


async def tidy(sessions: Sessions, settings: RetentionSettings) -> None:
    """Delete all that is due."""
    counts = {
        "conversations": await _conversations(sessions, settings.conversations_days),
        "runs": await _rows(sessions, RUNS, settings.runs_days),
        "documents": await _rows(sessions, DOCUMENTS, settings.documents_days if HAS_DOCUMENTS else None),
    }
    if any(counts.values()):
        logger.info("Deleted as too old: %s", ", ".join(f"{n} {what}" for what, n in counts.items() if n))


async def _conversations(sessions: Sessions, days: float | None) -> int:
    """Delete the conversations that nobody has used for so long, and return how many there were."""
    if days is None:
        return 0
    old = Conversation.updated_at < func.now() - timedelta(days=days)
    underway = exists().where(Run.conversation_id == Conversation.id, Run.status == RunStatus.RUNNING)
    return await portions.delete_conversations(sessions, old, ~underway)


async def _rows(sessions: Sessions, statement: TextClause, days: float | None) -> int:
    if days is None:
        return 0
    values = {"age": timedelta(days=days), "portion": portions.PORTION}
    return await portions.delete_rows(sessions, statement, values)
