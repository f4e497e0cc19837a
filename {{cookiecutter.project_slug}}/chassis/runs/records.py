"""The rows of `runs`: begun, kept alive, ended, and found again."""

import json
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from pydantic_ai import AgentRunResult
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationEntry
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RunUsage
from sqlalchemy import and_, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.conversations.outputs import keep_output
from chassis.conversations.store import (
    UNDECIDED,
    USAGE,
    Branch,
    conflict,
    deferred_json,
    messages_json,
)
from chassis.database.engine import Sessions
from chassis.database.jsonb import storable
from chassis.errors import RunError
from chassis.files.store import has_files, keep
from chassis.keys.caller import Caller
from chassis.keys.limits import admit
from chassis.runs import tables
from chassis.runs.approval import Decided, not_waiting
from chassis.runs.errors import INTERRUPTED
from chassis.runs.tables import RunStatus

TITLE_LENGTH = 80

# A statement each, which is a transaction of its own: one round trip, where the steps one by one take ten.
BEGIN = text("""
    WITH new_conversation AS (
        INSERT INTO conversations (id, scope, title, revision)
        SELECT CAST(:conversation_id AS text), CAST(:owner AS text), CAST(:title AS text), revision
        FROM (SELECT CAST(:revision AS text)) AS new (revision) WHERE revision IS NOT NULL
    )
    INSERT INTO runs (id, conversation_id, agent_id, model, owner, idempotency_key, request_hash, attempts)
    VALUES (:id, :conversation_id, :agent_id, :model, :owner, :idempotency_key, :request_hash, :attempts)
""")
# Its end, its usage and its messages are written all or none: not where somebody has cancelled it, nor where
# its conversation has changed. A process that was silent for long, and whose runs others gave up, may yet succeed.
SUCCEED = text("""
    WITH head AS (
        SELECT id, head_id FROM conversations
        WHERE id = :conversation_id AND revision = :expected_revision AND scope = :owner
        FOR NO KEY UPDATE
    ), ended AS (
        UPDATE runs SET status = CAST(:status AS run_status), finished_at = now(), error = NULL,
            model = :model, output = CAST(:output AS json), usage = CAST(:usage AS jsonb),
            calls = CAST(:calls AS json)
        WHERE id = :run_id AND status IN ('running', 'interrupted') AND attempts IS NOT DISTINCT FROM :attempt
            AND (CAST(:conversation_id AS text) IS NULL OR EXISTS (SELECT FROM head))
        RETURNING id
    ), entries AS (
        INSERT INTO conversation_entries (id, parent_id, message)
        SELECT entry.id,
            coalesce(
                lag(entry.id) OVER (ORDER BY position),
                CASE WHEN :is_branch THEN CAST(:parent_id AS text) ELSE head.head_id END
            ),
            entry.message
        FROM head, ended, ROWS FROM (
            unnest(CAST(:entry_ids AS text[])), jsonb_array_elements(CAST(:messages AS jsonb))
        ) WITH ORDINALITY AS entry (id, message, position)
    ), saved AS (
        UPDATE conversations SET head_id = coalesce(:head_id, head.head_id),
            branches = CASE WHEN :is_branch AND head.head_id IS NOT NULL
                THEN array_append(conversations.branches, head.head_id) ELSE conversations.branches END,
            revision = :revision, updated_at = now(),
            usage = CAST(:total_usage AS jsonb), deferred_tool_requests = CAST(:deferred AS jsonb)
        FROM head, ended WHERE conversations.id = head.id
    ), left_open AS (
        UPDATE runs SET status = 'cancelled', error = :undecided FROM head
        WHERE runs.conversation_id = head.id AND calls IS NOT NULL AND status = 'waiting'
            AND EXISTS (SELECT FROM ended)
    ), counted AS (
        INSERT INTO api_key_usage AS day (owner, day, runs, requests, input_tokens, output_tokens, cost)
        SELECT account, (now() AT TIME ZONE 'UTC')::date, 1, :requests, :input_tokens, :output_tokens, :cost
        FROM ended, unnest(CAST(:accounts AS text[])) AS account
        ON CONFLICT (owner, day) DO UPDATE SET runs = day.runs + 1,
            requests = day.requests + excluded.requests,
            input_tokens = day.input_tokens + excluded.input_tokens,
            output_tokens = day.output_tokens + excluded.output_tokens,
            cost = day.cost + excluded.cost
    )
    SELECT (SELECT count(*) FROM head), (SELECT count(*) FROM ended)
""")
# What was used counts, whoever ended the run; its row stays as whoever cancelled it wrote it. In the background the
# last attempt counts for all.
END = text("""
    WITH ended AS (
        UPDATE runs SET finished_at = coalesce(finished_at, now()), usage = CAST(:usage AS jsonb),
            status = CASE WHEN status = 'cancelled' THEN status ELSE CAST(:status AS run_status) END,
            error = coalesce(error, :error)
        WHERE id = :run_id AND status IN ('running', 'interrupted', 'cancelled')
            AND attempts IS NOT DISTINCT FROM :attempt
    )
    INSERT INTO api_key_usage AS day (owner, day, runs, requests, input_tokens, output_tokens, cost)
    SELECT account, (now() AT TIME ZONE 'UTC')::date, 1, :requests, :input_tokens, :output_tokens, :cost
    FROM unnest(CAST(:accounts AS text[])) AS account
    WHERE NOT EXISTS (SELECT FROM runs WHERE id = :run_id AND attempts IS DISTINCT FROM :attempt)
    ON CONFLICT (owner, day) DO UPDATE SET runs = day.runs + 1,
        requests = day.requests + excluded.requests,
        input_tokens = day.input_tokens + excluded.input_tokens,
        output_tokens = day.output_tokens + excluded.output_tokens,
        cost = day.cost + excluded.cost
""")


# The runs to which a key leads that comes again.
KEYED = (RunStatus.RUNNING, RunStatus.SUCCEEDED, RunStatus.WAITING, RunStatus.CONTINUED)


class RepeatedRun(Exception):  # noqa: N818 -- not an error: the caller gets the run that there is
    """The idempotency key was used before, for the same request."""

    def __init__(self, run_id: uuid.UUID) -> None:
        super().__init__(f"Repeated: {run_id}")
        self.run_id = run_id


class RunRecords:
    """Reads and writes `runs`."""

    def __init__(self, sessions: Sessions) -> None:
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
        decided: Decided | None = None,
        also: Callable[[AsyncSession], Awaitable[None]] | None = None,
    ) -> None:
        """Write the row of a run, and of a new conversation, and count it against the caller's limits.

        With `decided` it goes on with a run that waits, which then does so no more. With `also`, what else belongs to
        it is written in the same transaction.

        Raises:
            RunError: if a limit is reached, the conversation is busy or gone, the key was another request's, or
                somebody has decided before.
            RepeatedRun: if there is a run with the key, underway or well ended.
        """
        revision = None if new_conversation is None else str(uuid.uuid4())
        values = {
            **row,
            "title": title_of(prompt),
            "revision": revision,
            "idempotency_key": idempotency_key,
            "request_hash": request_hash,
        }
        try:
            if caller.has_limits or decided or also:
                async with self._sessions.begin() as session:
                    if is_first := decided is None or await _take_over(session, decided, row["id"]):
                        await session.execute(BEGIN, values)
                        if also:
                            await also(session)
                        # Last, since other runs of the same key and person wait from here on.
                        if caller.has_limits:
                            await admit(session, caller)
                if decided and not is_first:
                    raise await self._decided_before(decided, caller, idempotency_key, request_hash)
            else:
                async with self._sessions.engine.connect() as connection:
                    await connection.execute(BEGIN, values)
        except IntegrityError as error:
            constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", "")
            if constraint == "uq_runs_conversation_id_running":
                if idempotency_key:  # Its first request may be the one that writes to the conversation.
                    await self.refuse_repeated(caller.owner, idempotency_key, request_hash)
                raise _busy() from error
            if constraint == "uq_runs_owner_idempotency_key":
                await self.refuse_repeated(caller.owner, str(idempotency_key), request_hash)
                raise _busy() from error  # It has failed since, so the key is free again.
            if constraint == "fk_runs_conversation_id_conversations":  # deleted since it was loaded
                raise no_conversation(str(row["conversation_id"])) from error
            if constraint == "pk_conversations":  # somebody made it meanwhile
                raise _busy() from error
            raise
        if new_conversation is not None:
            new_conversation.revision = revision

    async def succeed(
        self,
        run_id: uuid.UUID,
        caller: Caller,
        output: Any,
        usage: RunUsage,
        *,
        model: str,
        result: AgentRunResult[Any],
        conversation: Conversation | None,
        branch: Branch | None = None,
        earlier: Sequence[ModelMessage] = (),
        calls: Sequence[Mapping[str, Any]] = (),
        attempt: int | None = None,
    ) -> None:
        """Write that a run ended well, count its usage, and save what it adds to its conversation, if it has one.

        Args:
            run_id: which run.
            caller: whose it is, and what it counts for.
            output: the answer.
            usage: of this run alone.
            model: which one answered.
            result: what the run brought.
            conversation: the one to append its messages to, as it was when the run began.
            branch: where to, if not to its end.
            earlier: what to append before them.
            calls: those of tools that it waits for a person's word on, if any.
            attempt: which one this is, of a run in the background.

        Raises:
            ConversationConflict: if the conversation has changed since.
            RunCancelled: if somebody has cancelled the run meanwhile.
        """
        messages: Sequence[ModelMessage] = ()
        if conversation:
            waits = bool(calls)
            messages = [*earlier, *result.new_messages()] if waits else keep_output(result, output, earlier)
        ids = [ConversationEntry(parent_id=None, message=message).id for message in messages]
        after = result.conversation
        values = {
            "run_id": run_id,
            "attempt": attempt,
            "owner": caller.owner,
            "status": RunStatus.WAITING if calls else RunStatus.SUCCEEDED,
            "calls": json.dumps(storable(calls)) if calls else None,
            "undecided": UNDECIDED,
            "model": model,
            "output": json.dumps(storable(output)),
            **_used(caller, usage),
            "conversation_id": conversation.conversation_id if conversation else None,
            "expected_revision": conversation.revision if conversation else None,
            "entry_ids": ids,
            "messages": "",
            "head_id": ids[-1] if ids else None,
            "is_branch": branch is not None and bool(ids),
            "parent_id": branch.parent_id if branch else None,
            "revision": str(uuid.uuid4()),
            "total_usage": USAGE.dump_json(after.usage).decode(),
            "deferred": deferred_json(after.deferred_tool_requests),
        }
        try:
            if conversation and has_files(messages):
                async with self._sessions.begin() as session:
                    kept = await keep(session, caller.owner, conversation.conversation_id, messages)
                    values["messages"] = messages_json(kept)
                    found, ended = (await session.execute(SUCCEED, values)).one()
                    if not (found and ended):
                        await session.rollback()
            else:
                values["messages"] = messages_json(messages)
                async with self._sessions.engine.connect() as connection:
                    found, ended = (await connection.execute(SUCCEED, values)).one()
        except IntegrityError as error:
            raise conflict(error, str(values["conversation_id"])) from error
        if conversation and not found:
            raise ConversationConflict(conversation.conversation_id)
        if not ended:
            raise RunCancelled("The run was cancelled.")

    async def end(
        self,
        run_id: uuid.UUID,
        caller: Caller,
        status: RunStatus,
        error: str,
        usage: RunUsage,
        attempt: int | None = None,
    ) -> None:
        """Write how a run ended that didn't end well, and count what it has used."""
        values = {
            "run_id": run_id,
            "status": status,
            "error": error,
            "attempt": attempt,
            **_used(caller, usage),
        }
        async with self._sessions.engine.connect() as connection:
            await connection.execute(END, values)

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

    async def read_waiting(self, conversation_id: str, owner: str) -> tables.Run | None:
        """Return the run of the conversation that waits for a person's word, or None."""
        table = tables.Run
        query = select(table).where(
            table.conversation_id == conversation_id,
            table.owner == owner,
            table.calls.is_not(None),
            table.status == RunStatus.WAITING,
        )
        async with self._sessions() as session:
            return await session.scalar(query)

    async def adopt(self, run_id: uuid.UUID, conversation_id: str) -> None:
        """Write that a run that was to leave nothing has a conversation after all."""
        table = tables.Run
        async with self._sessions.begin() as session:
            await session.execute(
                update(table).where(table.id == run_id).values(conversation_id=conversation_id)
            )

    async def _decided_before(
        self, decided: Decided, caller: Caller, idempotency_key: str | None, request_hash: str | None
    ) -> RunError:
        if idempotency_key:
            await self.refuse_repeated(caller.owner, idempotency_key, request_hash)
        row = await self.read(decided.waiting.id, caller.owner)
        return not_waiting(row or decided.waiting)

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
        """Mark the runs whose process has been silent for this long as interrupted.

        Those in the background are begun again instead, see chassis/background.
        """
        table = tables.Run
        silent = and_(table.alive_at < func.now() - timedelta(seconds=seconds), table.attempts.is_(None))
        values = {"status": RunStatus.INTERRUPTED, "finished_at": func.now(), "error": INTERRUPTED.detail}
        async with self._sessions.begin() as session:
            await session.execute(
                update(table).where(table.status == RunStatus.RUNNING, silent).values(values)
            )

    async def refuse_repeated(self, owner: str, idempotency_key: str, request_hash: str | None) -> None:
        """Do nothing unless a run that is underway, or ended well, has the key.

        Raises:
            RepeatedRun: if it is of the same request.
            RunError: if it is of another.
        """
        table = tables.Run
        query = select(table.id, table.request_hash).where(
            table.owner == owner,
            table.idempotency_key == idempotency_key,
            table.status.in_(KEYED),
        )
        async with self._sessions() as session:
            found = (await session.execute(query)).one_or_none()
        if found is None:
            return
        if found.request_hash != request_hash:
            raise RunError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "This Idempotency-Key came with another request before. Use a new key for a new request.",
            )
        raise RepeatedRun(found.id)


def title_of(prompt: str) -> str:
    """Return what a conversation that begins with this is called."""
    return " ".join(prompt.replace("\0", " ").split())[:TITLE_LENGTH]


def no_conversation(conversation_id: str) -> RunError:
    """Return the error for a conversation that the caller doesn't have."""
    return RunError(
        HTTPStatus.NOT_FOUND,
        f"There is no conversation {conversation_id!r}. Leave conversation_id out to start one.",
    )


async def _take_over(session: AsyncSession, decided: Decided, run_id: uuid.UUID) -> bool:
    """Write which run goes on with what was decided. Return whether nobody was before us."""
    table = tables.Run
    waits = (table.id == decided.waiting.id, table.status == RunStatus.WAITING)
    values = {"status": RunStatus.CONTINUED, "continued_by": run_id, "calls": decided.calls}
    done = await session.execute(update(table).where(*waits).values(values).returning(table.id))
    return done.one_or_none() is not None


def _used(caller: Caller, usage: RunUsage) -> dict[str, Any]:
    return {
        "accounts": sorted(account.id for account in caller.accounts),
        "usage": USAGE.dump_json(usage).decode(),
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": usage.cost or 0,
    }


def _busy() -> RunError:
    return RunError(
        HTTPStatus.CONFLICT,
        "Another run of the conversation is underway. Send it again when that one has ended.",
        retry_after=1,
    )
