"""Runs of the agents: what was asked of whom, how it ended, and what it used."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, Enum, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class RunStatus(StrEnum):
    """How far a run got."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"  # by its caller
    INTERRUPTED = "interrupted"  # by the end of its process
    WAITING = "waiting"  # for a person's word on the calls of tools in `calls`
    CONTINUED = "continued"  # by the run in `continued_by`, which has that word


class Run(Base):
    """One run of an agent. Only runs whose caller keeps the history itself have no conversation."""

    __tablename__ = "runs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    conversation_id: Mapped[str | None] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    agent_id: Mapped[str]
    model: Mapped[str]
    status: Mapped[RunStatus] = mapped_column(
        Enum(RunStatus, name="run_status", values_callable=lambda statuses: [s.value for s in statuses]),
        server_default=RunStatus.RUNNING.value,
    )
    error: Mapped[str | None] = mapped_column(comment="what went wrong, in words fit for the caller")
    usage: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    owner: Mapped[str] = mapped_column(
        server_default="anonymous", comment="whose run it is: the id of an API key"
    )
    # Not JSONB, which sorts the fields.
    output: Mapped[Any | None] = mapped_column(JSON(none_as_null=True), comment="the answer")
    idempotency_key: Mapped[str | None] = mapped_column(
        comment="the caller's, to send a request twice safely"
    )
    request_hash: Mapped[str | None] = mapped_column(comment="of the request that came with the key")
    alive_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="when its process last said so"
    )
    watched_at: Mapped[datetime | None] = mapped_column(comment="when another process last read its events")
    # Not JSONB, as above.
    calls: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSON(none_as_null=True), comment="calls of tools that a person was asked about"
    )
    continued_by: Mapped[uuid.UUID | None] = mapped_column(comment="the run that went on with the answer")
    attempts: Mapped[int | None] = mapped_column(
        comment="how often a run in the background was begun, 0 while it waits; NULL: it runs within its request"
    )

    __table_args__ = (
        Index("ix_runs_conversation_id_started_at", "conversation_id", started_at.desc()),
        # One writer at a time: a second run of a conversation is refused before it costs anything.
        Index(
            "uq_runs_conversation_id_running",
            "conversation_id",
            unique=True,
            postgresql_where=text("status = 'running'"),
        ),
        # A run that failed may be tried again with the same key.
        Index(
            "uq_runs_owner_idempotency_key",
            "owner",
            "idempotency_key",
            unique=True,
            postgresql_where=text(
                "idempotency_key IS NOT NULL AND status NOT IN ('failed', 'cancelled', 'interrupted')"
            ),
        ),
        Index("ix_runs_conversation_id_calls", "conversation_id", postgresql_where=text("calls IS NOT NULL")),
    )


class Thumb(StrEnum):
    """What somebody thinks of an answer."""

    UP = "up"
    DOWN = "down"


class RunFeedback(Base):
    """What the owner of a run thinks of its answer. It goes with the run."""

    __tablename__ = "run_feedback"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    owner: Mapped[str] = mapped_column(comment="whose run it is")
    thumb: Mapped[Thumb] = mapped_column(
        Enum(Thumb, name="feedback_thumb", values_callable=lambda thumbs: [t.value for t in thumbs])
    )
    words: Mapped[str | None]
    given_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RunEvents(Base):
    """Some events of a run that is streamed, for a caller who lost the connection; gone minutes later."""

    __tablename__ = "run_events"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    last: Mapped[int] = mapped_column(primary_key=True, comment="the number of the last of them")
    events: Mapped[str] = mapped_column(comment="JSON: [[name, data], ...]")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    # Nothing here is worth a write to the log of transactions: it is gone after a crash of PostgreSQL.
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 -- SQLAlchemy reads it as a plain class attribute


class BackgroundRun(Base):
    """What it takes to begin a run in the background, again too, in any process; gone with its end.

    Where it waits for a person's word and names a webhook, the address stays for the run that goes on with it.
    """

    __tablename__ = "background_runs"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    accounts: Mapped[list[str]] = mapped_column(ARRAY(Text), comment="the keys and people that it counts for")
    prompt: Mapped[str]
    model: Mapped[str | None] = mapped_column(comment="the one that the request names")
    replaces: Mapped[str | None] = mapped_column(comment="the message of the user's whose place it takes")
    webhook: Mapped[str | None] = mapped_column(comment="the address that is told of its end")
    messages: Mapped[str | None] = mapped_column(
        comment="JSON: what the model and the tools have said so far"
    )
    handed_back: Mapped[int] = mapped_column(
        server_default=text("0"), comment="attempts that the orderly end of their process cut off"
    )


class BackgroundCall(Base):
    """A call of a tool that is to be done once, however often its run is begun; see chassis/runs/once.py."""

    __tablename__ = "background_calls"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    tool_call_id: Mapped[str] = mapped_column(primary_key=True)
    result: Mapped[str | None] = mapped_column(
        comment="JSON; NULL: it was begun, and nobody knows how it ended"
    )
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
