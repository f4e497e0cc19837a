"""Deleting in portions so small that nobody has to wait for one."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from pydantic_ai.conversation_store import ConversationConflict
from sqlalchemy import ColumnElement, CursorResult, Executable, select

from chassis.conversations.store import DatabaseConversationStore
from chassis.conversations.tables import Conversation
from chassis.database.engine import Sessions

# How many rows one statement deletes, and how many seconds it rests before the next one.
PORTION, PAUSE_SECONDS = 100, 0.1


async def delete_conversations(sessions: Sessions, *which: ColumnElement[bool]) -> int:
    """Delete the conversations for which all of this holds, the oldest first, and return how many there were."""
    store, count = DatabaseConversationStore(sessions), 0
    found = select(Conversation.id, Conversation.revision).where(*which)
    portion = found.order_by(Conversation.updated_at).limit(PORTION)
    while True:
        async with sessions() as session:
            rows = (await session.execute(portion)).all()
        for conversation_id, revision in rows:
            with suppress(
                ConversationConflict
            ):  # it has changed meanwhile, and comes again if it still is one of these
                await store.delete_record(conversation_id, expected_revision=revision)
                count += 1
        if not rows:
            return count
        if len(rows) == PORTION:
            await asyncio.sleep(PAUSE_SECONDS)


async def delete_rows(
    sessions: Sessions, statement: Executable, values: Mapping[str, Any] | None = None
) -> int:
    """Repeat a statement that deletes a portion until it finds less, and return how many rows there were."""
    count = 0
    while True:
        async with sessions.begin() as session:
            deleted = cast("CursorResult[Any]", await session.execute(statement, values)).rowcount
        count += deleted
        if deleted < PORTION:
            return count
        await asyncio.sleep(PAUSE_SECONDS)
