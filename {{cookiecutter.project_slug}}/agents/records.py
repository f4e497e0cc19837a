"""The rows of `runs`: begun, kept alive, ended, and found again."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationRecord
from pydantic_ai.usage import RunUsage
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from agents.callers import Caller, admit, record_usage
from agents.failures import INTERRUPTED, RunError
from agents.store import USAGE, record_columns
from db import tables
from db.tables import RunStatus

TITLE_LENGTH = 80


class RepeatedRun(Exception):  # noqa: N818 -- not an error: the caller gets the run that there is
    """The idempotency key was used before, for the same request."""

    def __init__(self, run_id: uuid.UUID) -> None:
        """Keep the id of the run."""
        super().__init__(f"Repeated: {run_id}")
        self.run_id = run_id


class RunRecords:
    """Reads and writes `runs`."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Keep the factory of the sessions; each operation opens one of its own."""
        self._sessions = sessions

    async def begin(
        self,
        caller: Caller,
        row: Mapping[str, Any],
        prompt: str,
        *,
        new_conversation: Conversation | None = None,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> None:
        """Write the row of a run, and of a new conversation, and count it against the caller's limits.

        Raises:
            RunError: if a limit is reached, the conversation is busy or gone, or the key was another request's.
            RepeatedRun: if there is a run with the key, underway or well ended.
        """
        try:
            async with self._sessions.begin() as session:
                if new_conversation is not None:
                    await _insert_conversation(session, new_conversation, caller.owner, prompt)
                values = {**row, "idempotency_key": idempotency_key, "request_hash": request_hash}
                await session.execute(insert(tables.Run).values(values))
                # Last, since other runs of the same key wait from here on.
                await admit(session, caller)
        except IntegrityError as error:
            constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", "")
            if constraint == "uq_runs_conversation_id_running":
                raise _busy() from error
            if constraint == "uq_runs_owner_idempotency_key":
                raise await self._repeated(caller.owner, str(idempotency_key), request_hash) from error
            if constraint == "fk_runs_conversation_id_conversations":  # deleted since it was loaded
                raise no_conversation(str(row["conversation_id"])) from error
            if constraint == "pk_conversations":  # somebody made it meanwhile
                raise _busy() from error
            raise

    async def end(
        self,
        run_id: uuid.UUID,
        owner: str,
        status: RunStatus,
        *,
        usage: RunUsage | None = None,
        **values: Any,
    ) -> None:
        """Write how a run ended, and count its usage. One that was cancelled elsewhere stays so."""
        if usage is not None:
            values["usage"] = USAGE.dump_python(usage, mode="json")
        table = tables.Run
        # A process that was silent for long, and whose runs others gave up, may yet succeed.
        may_end = table.status.in_((RunStatus.RUNNING, RunStatus.INTERRUPTED))
        statement = update(table).where(table.id == run_id, may_end)
        async with self._sessions.begin() as session:
            await session.execute(statement.values(status=status, finished_at=func.now(), **values))
            if usage is not None:
                await record_usage(session, owner, usage)

    async def cancel(self, run_id: uuid.UUID, owner: str) -> bool:
        """Write that a run of another process is cancelled. Return whether the owner has such a run."""
        table = tables.Run
        running = (table.id == run_id, table.owner == owner, table.status == RunStatus.RUNNING)
        statement = update(table).where(*running).values(status=RunStatus.CANCELLED, finished_at=func.now())
        async with self._sessions.begin() as session:
            await session.execute(statement)
        return await self.read(run_id, owner) is not None

    async def read(self, run_id: uuid.UUID, owner: str) -> tables.Run | None:
        """Return the owner's run, or None."""
        async with self._sessions() as session:
            run = await session.get(tables.Run, run_id)
        return run if run is not None and run.owner == owner else None

    async def read_usage(self, owner: str, *, days: int) -> Sequence[tables.ApiKeyUsage]:
        """Return what the owner's runs have used on the last days with a run, the newest first."""
        table = tables.ApiKeyUsage
        query = select(table).where(table.owner == owner).order_by(table.day.desc()).limit(days)
        async with self._sessions() as session:
            return (await session.scalars(query)).all()

    async def keep_alive(self, run_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, float | None]:
        """Say that these runs go on. Return those that may, and how many seconds ago each was watched."""
        table = tables.Run
        # Those that others gave up may yet succeed, as in `end`; those that were cancelled may not.
        may_go_on = table.status.in_((RunStatus.RUNNING, RunStatus.INTERRUPTED))
        statement = (
            update(table)
            .where(table.id.in_(run_ids), may_go_on)
            .values(alive_at=func.now())
            .returning(table.id, func.extract("epoch", func.now() - table.watched_at))
        )
        async with self._sessions.begin() as session:
            rows = (await session.execute(statement)).tuples().all()
        return {run_id: None if seconds is None else float(seconds) for run_id, seconds in rows}

    async def give_up(self, seconds: float) -> None:
        """Mark the runs whose process has been silent for this long as interrupted."""
        table = tables.Run
        silent = table.alive_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        values = {"status": RunStatus.INTERRUPTED, "finished_at": func.now(), "error": INTERRUPTED.detail}
        async with self._sessions.begin() as session:
            await session.execute(
                update(table).where(table.status == RunStatus.RUNNING, silent).values(values)
            )

    async def _repeated(self, owner: str, idempotency_key: str, request_hash: str | None) -> Exception:
        table = tables.Run
        query = select(table.id, table.request_hash).where(
            table.owner == owner,
            table.idempotency_key == idempotency_key,
            table.status.in_((RunStatus.RUNNING, RunStatus.SUCCEEDED)),
        )
        async with self._sessions() as session:
            found = (await session.execute(query)).one_or_none()
        if found is None:  # It has failed since, so the key is free again.
            return _busy()
        if found.request_hash != request_hash:
            return RunError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "This Idempotency-Key came with another request before. Use a new key for a new request.",
            )
        return RepeatedRun(found.id)


def no_conversation(conversation_id: str) -> RunError:
    """Return the error for a conversation that the caller doesn't have."""
    return RunError(
        HTTPStatus.NOT_FOUND,
        f"There is no conversation {conversation_id!r}. Leave conversation_id out to start one.",
    )


def _busy() -> RunError:
    return RunError(
        HTTPStatus.CONFLICT,
        "Another run of the conversation is underway. Send it again when that one has ended.",
        retry_after=1,
    )


async def _insert_conversation(
    session: AsyncSession, conversation: Conversation, owner: str, prompt: str
) -> None:
    record = ConversationRecord(conversation_id=conversation.conversation_id, head_id=None, scope=owner)
    title = " ".join(prompt.replace("\0", " ").split())[:TITLE_LENGTH]
    await session.execute(insert(tables.Conversation).values(**record_columns(record), title=title))
    conversation.revision = record.revision
