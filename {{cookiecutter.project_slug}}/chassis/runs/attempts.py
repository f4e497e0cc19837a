"""Runs in the background as rows: put there, begun by whichever process, gone on with by another, and done.

Each time that a run is begun `runs.attempts` grows. What an earlier attempt writes after that counts for nothing, be it
that its process was only cut off and still goes on.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    UserContent,
    UserPromptPart,
)
from sqlalchemy import CursorResult, TextClause, insert, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.conversations.store import messages_json
from chassis.database.engine import Sessions
from chassis.database.jsonb import restore_text
from chassis.keys.caller import Caller
from chassis.runs.approval import Decided, decided_on
from chassis.runs.tables import BackgroundRun, Run
from chassis.users.accounts import Account

# How long to wait before the database is asked again that couldn't be reached.
PAUSE_SECONDS = 1
OUTAGE = (OperationalError, PoolTimeoutError)

# Also one that was cancelled while nobody was at it, so that nobody has kept what it brought and counted what it used.
# It isn't kept where another run of the conversation has begun since: it would come after what that one says.
_TAKE = """
    UPDATE runs SET attempts = attempts + 1, alive_at = now() FROM background_runs AS work
    WHERE runs.id = :run_id AND work.run_id = runs.id AND ({which})
    RETURNING runs.id, attempts, handed_back, agent_id, conversation_id, owner, accounts, prompt, work.model,
        runs.model AS model_id, replaces, messages, status,
        CAST(extract(epoch FROM now() - started_at) AS float) AS seconds,
        NOT EXISTS (
            SELECT FROM runs AS later
            WHERE later.conversation_id = runs.conversation_id AND later.started_at > runs.started_at
        ) AS is_last
"""
CANCELLED = "runs.status = 'cancelled' AND runs.usage = '{}'"
TAKE = text(_TAKE.format(which=f"runs.status = 'running' OR {CANCELLED}"))
TAKE_CANCELLED = text(_TAKE.format(which=f"{CANCELLED} AND attempts = handed_back"))
SAVE = text("""
    UPDATE background_runs SET messages = :messages FROM runs
    WHERE run_id = :run_id AND runs.id = run_id AND runs.status = 'running' AND runs.attempts = :attempt
""")
# Where a run waits for a person's word, the address stays for the run that goes on with it. The prompt is empty once it is
# told that it waits, and no JSON of a message in the row of a run that goes on within the request that decides.
FINISH = text("""
    WITH ended AS (
        SELECT run_id, owner, webhook, status = 'waiting' AND webhook IS NOT NULL AS waits
        FROM runs JOIN background_runs ON runs.id = run_id
        WHERE run_id = :run_id AND runs.status <> 'running' AND prompt <> ''
        FOR UPDATE -- of the run too, and first, as whoever decides on what it waits for does
    ), told AS (
        UPDATE background_runs AS work SET prompt = '', messages = NULL FROM ended
        WHERE work.run_id = ended.run_id AND waits
    ), done AS (
        DELETE FROM background_runs AS work USING ended WHERE work.run_id = ended.run_id AND NOT waits
    )
    SELECT owner, webhook FROM ended
""")
GO_ON = text("""
    INSERT INTO background_runs (run_id, accounts, prompt, webhook)
    SELECT :run_id, accounts, '[]', webhook FROM background_runs WHERE run_id = :waiting AND webhook IS NOT NULL
    RETURNING run_id
""")
FORGET_TOLD = text("DELETE FROM background_runs WHERE run_id = :waiting AND prompt = ''")

COUNT_QUEUED = text("""
    SELECT count(*) FROM background_runs JOIN runs ON runs.id = run_id
    WHERE owner = :owner AND attempts = 0 AND runs.status = 'running'
""")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """A run that an attempt was begun at: which one it is, and how many of them went wrong before."""

    id: uuid.UUID
    attempt: int
    failures: int
    agent_id: str
    conversation_id: str
    caller: Caller
    content: str | Sequence[UserContent]
    model: str | None
    replaces: str | None
    said: Sequence[ModelMessage]
    # A person's word on the calls that the run before it waited for, in place of a prompt.
    decided: Decided | None
    # The model that its row names, and how long ago it was asked for.
    model_id: str
    seconds: float
    # Whether it is only taken up to keep what it brought, and whether its conversation still ends with it.
    cancelled: bool
    is_last: bool


async def put(
    session: AsyncSession,
    run_id: uuid.UUID,
    caller: Caller,
    content: str | Sequence[UserContent],
    *,
    model: str | None,
    replaces: str | None,
    webhook: str | None,
) -> None:
    """Write what it takes to begin a run, in the transaction that writes its row."""
    await session.execute(
        insert(BackgroundRun).values(
            run_id=run_id,
            accounts=sorted(account.id for account in caller.accounts),
            prompt=messages_json([ModelRequest([UserPromptPart(content)])]),
            model=model,
            replaces=replaces,
            webhook=webhook,
        )
    )


async def take_webhook(session: AsyncSession, waiting: uuid.UUID) -> str | None:
    """Return the address that is told of the end of a run that waits, for the one in the background that goes on."""
    address = await session.scalar(select(BackgroundRun.webhook).where(BackgroundRun.run_id == waiting))
    await session.execute(FORGET_TOLD, {"waiting": waiting})
    return address


async def count_queued(session: AsyncSession, owner: str) -> int:
    """Return how many of somebody's runs wait that no attempt was begun at."""
    return int(await session.scalar(COUNT_QUEUED, {"owner": owner}) or 0)


async def go_on(session: AsyncSession, waiting: uuid.UUID, run_id: uuid.UUID) -> bool:
    """Have the address that was told of a run that waits be told of the one that goes on. Return whether there is one."""
    values = {"waiting": waiting, "run_id": run_id}
    told = (await session.execute(GO_ON, values)).one_or_none() is not None
    await session.execute(FORGET_TOLD, values)
    return told


class Attempts:
    """Reads and writes `background_runs`; waits where the database can't be reached."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def take(self, run_id: uuid.UUID) -> Work | None:
        """Begin an attempt at a run; None where it has ended."""
        return await self._take(TAKE, run_id)

    async def take_cancelled(self, run_id: uuid.UUID) -> Work | None:
        """Return what is kept of a run that was cancelled while it waited; None of another."""
        return await self._take(TAKE_CANCELLED, run_id)

    async def _take(self, statement: TextClause, run_id: uuid.UUID) -> Work | None:
        async def write() -> tuple[Any, str | Sequence[UserContent], Decided | None] | None:
            async with self._sessions.begin() as session:
                if (row := (await session.execute(statement, {"run_id": run_id})).one_or_none()) is None:
                    return None
                content = _content(row.prompt)
                return row, content, None if content else await _decided(session, row.conversation_id, row.id)

        if (taken := await patiently(write)) is None:
            return None
        row, content, decided = taken
        accounts = tuple(Account(account) for account in row.accounts)
        said = ModelMessagesTypeAdapter.validate_json(restore_text(row.messages)) if row.messages else []
        return Work(
            row.id,
            row.attempts,
            row.attempts - row.handed_back - 1,
            row.agent_id,
            row.conversation_id,
            Caller(row.owner, accounts),
            content,
            row.model,
            row.replaces,
            said,
            decided,
            row.model_id,
            row.seconds,
            cancelled=row.status == "cancelled",
            is_last=row.is_last,
        )

    async def save(self, run_id: uuid.UUID, attempt: int, messages: Sequence[ModelMessage]) -> bool:
        """Keep what was said so far, from where another attempt goes on.

        Return whether this one may: not where the run was cancelled, or another attempt at it was begun.
        """
        values = {"run_id": run_id, "attempt": attempt, "messages": messages_json(messages)}

        async def write() -> bool:
            async with self._sessions.begin() as session:
                written: CursorResult[Any] = await session.execute(SAVE, values)  # type: ignore[assignment]
            return bool(written.rowcount)

        return await patiently(write)

    async def hand_back(self, run_id: uuid.UUID) -> None:
        """Say that this attempt didn't go wrong, but was cut off by the orderly end of its process."""
        table = BackgroundRun
        handed = update(table).where(table.run_id == run_id).values(handed_back=table.handed_back + 1)
        async with self._sessions.begin() as session:
            await session.execute(handed)

    async def finish(
        self, run_id: uuid.UUID, tell: Callable[[str, AsyncSession, str], Awaitable[None]]
    ) -> None:
        """Forget what it took to begin a run, if it has ended, and in the same transaction `tell` who asked to be told."""

        async def write() -> None:
            async with self._sessions.begin() as session:
                row = (await session.execute(FINISH, {"run_id": run_id})).one_or_none()
                if row and row.webhook:
                    await tell(row.owner, session, row.webhook)

        await patiently(write)


async def _decided(session: AsyncSession, conversation_id: str, run_id: uuid.UUID) -> Decided | None:
    # The first two are what there is an index for.
    of = (Run.conversation_id == conversation_id, Run.calls.is_not(None), Run.continued_by == run_id)
    waiting = await session.scalar(select(Run).where(*of))
    return decided_on(waiting) if waiting else None


def _content(prompt: str) -> str | Sequence[UserContent]:
    [request] = ModelMessagesTypeAdapter.validate_json(restore_text(prompt))
    [part] = request.parts
    return part.content if isinstance(part, UserPromptPart) else ""


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the database until it can be reached."""
    while True:
        try:
            return await ask()
        except OUTAGE:
            await asyncio.sleep(PAUSE_SECONDS)
