"""pydantic-ai's `ConversationStore` on our own tables.

What the five methods must do is written in `pydantic_ai.conversation_store`; what is here makes
them hold with many processes writing at once:

- A save is one transaction that starts with the head record. It counts only if the record's
  revision is still the expected one, and the row's lock makes others wait for the outcome. How a
  run's end saves its messages in one statement, by the same rules, is in `chassis.runs.records`.
- The foreign key from a head to its newest entry is checked when the transaction ends. So an entry
  that somebody deletes at the same moment is noticed by one of the two, who gets a conflict.
- Deletes that might free shared entries run one after another.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from pydantic import TypeAdapter
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, UserPromptPart
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage
from pydantic_core import PydanticSerializationError
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    except_,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from chassis.conversations import tables
from chassis.database.engine import Sessions
from chassis.database.jsonb import restore_text, restored, storable
from chassis.files.store import has_files, keep

USAGE = TypeAdapter(RunUsage)
DEFERRED = TypeAdapter(DeferredToolRequests | None)

# The key of the advisory lock that deletes hold: any number that nothing else uses.
DELETE_LOCK = 7_208_814_451


# What a turn needs is built once: that takes longer than to run it.
RECORD = select(tables.Conversation.__table__).where(tables.Conversation.id == bindparam("id"))


class ConversationSummary(NamedTuple):
    """What a list of conversations shows of each."""

    id: str
    title: str | None
    created_at: datetime
    updated_at: datetime
    agent_id: str | None
    attachments: list[dict[str, str]] | None
    waiting_run_id: UUID | None = None


class Branch(NamedTuple):
    """Where a run leaves the history that its conversation has: after this entry, or before all."""

    parent_id: str | None


def _history() -> Select[str, str | None, str]:
    table = tables.ConversationEntry
    message = sql_cast(table.message, Text).label("message")
    history = (
        select(table.id, table.parent_id, message, literal(1).label("age"))
        .where(table.id == bindparam("head_id"))
        .cte("history", recursive=True)
    )
    older = select(table.id, table.parent_id, message, history.c.age + 1)
    history = history.union_all(
        older.where(table.id == history.c.parent_id, history.c.age < bindparam("limit"))
    )
    return select(history.c.id, history.c.parent_id, history.c.message).order_by(history.c.age.desc())


HISTORY = _history()
MOST_ENTRIES = 2**31 - 1
# Runs are a layer above, so their table is known here by its name only.
IS_BEGUN = sql_text(
    "EXISTS (SELECT FROM runs WHERE runs.conversation_id = conversations.id AND runs.status = 'running')"
)
# A run that failed, or was cut off, has left nothing in the conversation.
ANSWERED_LAST: ColumnElement[str | None] = literal_column(
    "(SELECT agent_id FROM runs WHERE runs.conversation_id = conversations.id AND "
    "runs.status NOT IN ('failed', 'interrupted') ORDER BY started_at DESC LIMIT 1)"
)
# The newest of them, by name and kind.
ATTACHMENTS: ColumnElement[Any] = literal_column(
    "(SELECT jsonb_agg(jsonb_build_object('name', name, 'media_type', media_type)) FROM (SELECT name, media_type "
    "FROM api_files WHERE conversation_id = conversations.id ORDER BY created_at DESC LIMIT 5) AS newest)"
)
SUMMARY = (
    tables.Conversation.id,
    tables.Conversation.title,
    tables.Conversation.created_at,
    tables.Conversation.updated_at,
    ANSWERED_LAST.label("agent_id"),
    ATTACHMENTS.label("attachments"),
)
# Whoever goes on in a conversation has left the question of approval open. The same is in `chassis.runs.records`.
UNDECIDED = "The conversation went on without a decision."
LEAVE_OPEN = sql_text("""
    UPDATE runs SET status = 'cancelled', error = :undecided
    WHERE conversation_id = :id AND calls IS NOT NULL AND status = 'waiting'
""")
WAITS: ColumnElement[Any] = literal_column(
    "(SELECT id FROM runs WHERE runs.conversation_id = conversations.id AND calls IS NOT NULL AND status = 'waiting')"
)
# The entry before another one, if that is in the history.
BEFORE = sql_text("""
    WITH RECURSIVE history AS (
        SELECT id, parent_id FROM conversation_entries WHERE id = :head_id
        UNION ALL
        SELECT entry.id, entry.parent_id FROM conversation_entries AS entry JOIN history ON entry.id = history.parent_id
    )
    SELECT parent_id FROM history WHERE id = :entry_id
""")
# The last entry of a run, in what the conversation has or has left behind.
END_OF_RUN = sql_text("""
    WITH RECURSIVE log AS (
        SELECT id, parent_id FROM conversation_entries WHERE id = ANY(CAST(:tips AS text[]))
        UNION
        SELECT entry.id, entry.parent_id FROM conversation_entries AS entry JOIN log ON entry.id = log.parent_id
    )
    SELECT entry.id FROM log JOIN conversation_entries AS entry ON entry.id = log.id
    WHERE entry.message ->> 'run_id' = :run_id AND NOT EXISTS (
        SELECT FROM conversation_entries AS next WHERE next.parent_id = entry.id AND next.message ->> 'run_id' = :run_id
    )
    LIMIT 1
""")


class DatabaseConversationStore(ConversationStore):
    """Keeps conversations in `conversations` and `conversation_entries`.

    Deleting a conversation also deletes its runs, and the entries that no other conversation's
    history or branch reaches.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation, or None."""
        async with self._sessions.engine.connect() as connection:
            row = (await connection.execute(RECORD, {"id": conversation_id})).one_or_none()
        return None if row is None else _record(row)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """Return the records, or those of one scope, the last saved first, at most `limit` of them."""
        query = select(tables.Conversation).order_by(tables.Conversation.updated_at.desc()).limit(limit)
        if scope is not None:
            query = query.where(tables.Conversation.scope == scope)
        async with self._sessions() as session:
            return [_record(row) for row in await session.scalars(query)]

    async def read_summaries(
        self, scope: str, *, limit: int, start: ColumnElement[bool] | None = None
    ) -> Sequence[ConversationSummary]:
        """Return what a list shows of a scope's conversations, the last saved first, from `start` on.

        One whose first run didn't end well has nothing to show. While that run goes on it is in the list.
        """
        table = tables.Conversation
        query = select(*SUMMARY).where(table.scope == scope, or_(table.head_id.is_not(None), IS_BEGUN))
        if start is not None:
            query = query.where(start)
        query = query.order_by(table.updated_at.desc(), table.id.desc()).limit(limit)
        async with self._sessions() as session:
            return [ConversationSummary(*row) for row in await session.execute(query)]

    async def read_summary(self, conversation_id: str, scope: str) -> ConversationSummary | None:
        """Return the same of one conversation, and the run in it that waits for a person's word, or None."""
        query = select(*SUMMARY, WAITS).where(*_in_scope(conversation_id, scope))
        async with self._sessions() as session:
            row = (await session.execute(query)).one_or_none()
        return None if row is None else ConversationSummary(*row)

    async def rename(self, conversation_id: str, scope: str, title: str) -> ConversationSummary | None:
        """Give a conversation another title. Return what a list shows of it, or None where there is none."""
        table = tables.Conversation
        statement = update(table).where(*_in_scope(conversation_id, scope)).values(title=title)
        async with self._sessions.begin() as session:
            row = (await session.execute(statement.returning(*SUMMARY))).one_or_none()
        return None if row is None else ConversationSummary(*row)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and its new entries, both or neither.

        Raises:
            ConversationConflict: as `ConversationStore.write_record` says.
        """
        table = tables.Conversation
        values = record_columns(record)
        statement: Any
        if expected_revision is None:
            statement = postgresql_insert(table).values(values).on_conflict_do_nothing()
        else:
            unchanged = and_(table.id == record.conversation_id, table.revision == expected_revision)
            statement = update(table).where(unchanged).values(values)
        try:
            async with self._sessions.begin() as session:
                if await session.scalar(statement.returning(table.id)) is None:
                    raise ConversationConflict(record.conversation_id)
                if expected_revision is not None:
                    await session.execute(LEAVE_OPEN, {"id": record.conversation_id, "undecided": UNDECIDED})
                if new_entries:
                    messages = [entry.message for entry in new_entries]
                    # Where it is nobody's, nobody could have its files.
                    if record.scope is not None and has_files(messages):
                        messages = await keep(session, record.scope, record.conversation_id, messages)
                    await session.execute(
                        insert(tables.ConversationEntry), _entry_rows(new_entries, messages)
                    )
        except IntegrityError as error:
            raise conflict(error, record.conversation_id) from error

    async def load_before(
        self, conversation_id: str, entry_id: str, *, limit: int, scope: str
    ) -> tuple[Conversation, Branch] | None:
        """Load a conversation as it was before one of its user's messages, to go on from there.

        Nothing is changed yet: the history that is left becomes a branch when there is something new to save.

        Raises:
            KeyError: if its history has no such message of the user's.
        """
        record = await self.read_record(conversation_id)
        if record is None or record.scope != scope:
            return None
        async with self._sessions.engine.connect() as connection:
            values = {"head_id": record.head_id, "entry_id": entry_id}
            before = (await connection.execute(BEFORE, values)).one_or_none()
        if before is None or not _is_question((await self.read_entry(entry_id)).message):
            raise KeyError(entry_id)
        history = await self.read_history(before.parent_id, limit=limit)
        conversation = Conversation(
            conversation_id=conversation_id,
            messages=[entry.message for entry in history],
            usage=record.usage,
            revision=record.revision,
        )
        return conversation, Branch(before.parent_id)

    async def load_after(
        self, conversation_id: str, run_id: str, *, limit: int, scope: str
    ) -> tuple[Conversation, Branch | None] | None:
        """Load a conversation as it was at the end of one of its runs, to go on from there.

        Where that isn't its end any more, there is a branch, as with `load_before`.

        Raises:
            KeyError: if it has no message that names the run.
        """
        record = await self.read_record(conversation_id)
        if record is None or record.scope != scope:
            return None
        end_id = await self.find_end(record, run_id)
        history = await self.read_history(end_id, limit=limit)
        conversation = Conversation(
            conversation_id=conversation_id,
            messages=[entry.message for entry in history],
            usage=record.usage,
            revision=record.revision,
            deferred_tool_requests=record.deferred_tool_requests if end_id == record.head_id else None,
        )
        return conversation, None if end_id == record.head_id else Branch(end_id)

    async def find_end(self, record: ConversationRecord, run_id: str) -> str:
        """Return the id of the last entry that a run has added to a conversation.

        Raises:
            KeyError: if it has no message that names the run.
        """
        tips = [tip for tip in (record.head_id, *record.branches) if tip is not None]
        async with self._sessions.engine.connect() as connection:
            end_id = await connection.scalar(END_OF_RUN, {"tips": tips, "run_id": run_id})
        if end_id is None:
            raise KeyError(run_id)
        return str(end_id)

    async def append(
        self,
        conversation: Conversation,
        scope: str,
        messages: Sequence[ModelMessage],
        usage: RunUsage,
        branch: Branch | None = None,
    ) -> None:
        """Add to the end of a conversation, or to a branch, what a run has brought that didn't end well.

        Raises:
            ConversationConflict: if it has changed since.
        """
        conversation_id = conversation.conversation_id
        record = await self.read_record(conversation_id)
        if record is None or (record.revision, record.scope) != (conversation.revision, scope):
            raise ConversationConflict(conversation_id)
        entries: list[ConversationEntry] = []
        start = branch.parent_id if branch else record.head_id
        left = [record.head_id] if branch and record.head_id else []
        for message in messages:
            parent_id = entries[-1].id if entries else start
            entries.append(ConversationEntry(parent_id=parent_id, message=message))
        if not entries:
            return
        changed = replace(
            record,
            head_id=entries[-1].id,
            branches=[*record.branches, *left],
            usage=record.usage + usage,
            deferred_tool_requests=None,
            revision=str(uuid.uuid4()),
            updated_at=datetime.now(UTC),
        )
        await self.write_record(changed, new_entries=entries, expected_revision=record.revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation's record, its runs, and the entries that nobody else reaches.

        Raises:
            ConversationConflict: as `ConversationStore.delete_record` says.
        """
        table = tables.Conversation
        statement = (
            delete(table)
            .where(table.id == conversation_id, table.revision == expected_revision)
            .returning(table.head_id, table.branches)
        )
        try:
            async with self._sessions.begin() as session:
                await session.execute(select(func.pg_advisory_xact_lock(DELETE_LOCK)))
                row = (await session.execute(statement)).one_or_none()
                if row is None:
                    raise ConversationConflict(conversation_id)
                tips = [tip for tip in (row.head_id, *row.branches) if tip is not None]
                if tips:
                    await session.execute(_delete_unreached(tips))
        except IntegrityError as error:
            raise conflict(error, conversation_id) from error

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return the entry.

        Raises:
            KeyError: if there is none with this id.
        """
        return (await self.read_history(entry_id, limit=1))[0]

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to `head_id`, oldest first, or only the last `limit` of them.

        Raises:
            KeyError: if there is no entry with the id `head_id`.
        """
        if head_id is None or limit == 0:
            return []
        values = {"head_id": head_id, "limit": MOST_ENTRIES if limit is None else limit}
        async with self._sessions.engine.connect() as connection:
            rows = (await connection.execute(HISTORY, values)).all()
        if not rows:
            raise KeyError(head_id)
        messages = ModelMessagesTypeAdapter.validate_json(
            f"[{','.join(restore_text(row.message) for row in rows)}]"
        )
        return [
            ConversationEntry(id=row.id, parent_id=row.parent_id, message=message)
            for row, message in zip(rows, messages, strict=True)
        ]


def used(usage: RunUsage) -> dict[str, Any]:
    """Return a usage as JSON has it, without all that is zero or unknown."""
    return {name: value for name, value in USAGE.dump_python(usage, mode="json").items() if value}


def record_columns(record: ConversationRecord) -> dict[str, Any]:
    """Return the record as the values of a row of `conversations`."""
    return {
        "id": record.conversation_id,
        "head_id": record.head_id,
        "usage": USAGE.dump_python(record.usage, mode="json"),
        "deferred_tool_requests": storable(DEFERRED.dump_python(record.deferred_tool_requests, mode="json")),
        "scope": record.scope,
        "forked_from": record.forked_from,
        "forked_at": record.forked_at,
        "branches": record.branches,
        "revision": record.revision,
        "updated_at": record.updated_at,
        "format_version": record.format_version,
    }


def _record(row: Any) -> ConversationRecord:
    return ConversationRecord(
        conversation_id=row.id,
        head_id=row.head_id,
        # From JSON text, because bytes are base64 only there.
        usage=USAGE.validate_json(json.dumps(row.usage)),
        deferred_tool_requests=DEFERRED.validate_json(json.dumps(restored(row.deferred_tool_requests))),
        scope=row.scope,
        forked_from=row.forked_from,
        forked_at=row.forked_at,
        branches=list(row.branches),
        revision=row.revision,
        updated_at=row.updated_at,
    )


def _is_question(message: ModelMessage) -> bool:
    return any(isinstance(part, UserPromptPart) for part in message.parts)


def _in_scope(conversation_id: str, scope: str) -> tuple[ColumnElement[bool], ...]:
    return tables.Conversation.id == conversation_id, tables.Conversation.scope == scope


def messages_json(messages: Sequence[ModelMessage]) -> str:
    """Return the messages as a JSON array that JSONB can hold."""
    try:
        document = ModelMessagesTypeAdapter.dump_json(list(messages)).decode()
        if "\\u0000" not in document and "\\u001a" not in document:
            return document
    except PydanticSerializationError:  # Halves of surrogate pairs.
        pass
    return json.dumps(storable(ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")))


def deferred_json(requests: DeferredToolRequests | None) -> str | None:
    """Return the tool calls that a conversation waits for as JSON that JSONB can hold."""
    return json.dumps(storable(DEFERRED.dump_python(requests, mode="json"))) if requests else None


def _entry_rows(
    entries: Sequence[ConversationEntry], messages: Sequence[ModelMessage]
) -> list[dict[str, Any]]:
    documents = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return [
        {"id": entry.id, "parent_id": entry.parent_id, "kind": entry.kind, "message": storable(document)}
        for entry, document in zip(entries, documents, strict=True)
    ]


def conflict(error: IntegrityError, conversation_id: str) -> Exception:
    """What the error means: an entry that is pointed at is gone, or something unforeseen."""
    return ConversationConflict(conversation_id) if isinstance(error.orig, ForeignKeyViolation) else error


def _delete_unreached(tips: Sequence[str]) -> Any:
    """Delete what the `tips` of a deleted conversation reached and no conversation reaches now.

    All entries are in the history of some tip. So one of ours is still needed if a conversation
    has it as a tip, or if it has a child that isn't among ours; then so are all before it.
    """
    entry, conversation = tables.ConversationEntry, tables.Conversation
    ours = select(entry.id, entry.parent_id).where(entry.id.in_(tips)).cte("ours", recursive=True)
    ours = ours.union(select(entry.id, entry.parent_id).where(entry.id == ours.c.parent_id))
    # Apart, so that each can use its index.
    is_head = exists().where(conversation.head_id == ours.c.id)
    is_branch = exists().where(conversation.branches.contains(array([ours.c.id])))
    child = aliased(entry)
    has_other_child = exists().where(child.parent_id == ours.c.id, child.id.not_in(select(ours.c.id)))
    needed = (
        select(ours.c.id, ours.c.parent_id)
        .where(or_(is_head, is_branch, has_other_child))
        .cte("needed", recursive=True)
    )
    needed = needed.union(select(ours.c.id, ours.c.parent_id).where(ours.c.id == needed.c.parent_id))
    return delete(entry).where(entry.id.in_(except_(select(ours.c.id), select(needed.c.id))))
