"""Conversations as pydantic-ai's `ConversationStore` keeps them: a head record and a log of entries.

An entry is written once and never changed. Each points at the one before it, so a branch or a fork
shares its past with the conversation it left instead of copying it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class ConversationEntry(Base):
    """One message of a conversation's log."""

    __tablename__ = "conversation_entries"

    id: Mapped[str] = mapped_column(primary_key=True)
    parent_id: Mapped[str | None] = mapped_column(
        ForeignKey("conversation_entries.id"), index=True, comment="the entry before this one"
    )
    kind: Mapped[str] = mapped_column(server_default="message")
    message: Mapped[dict[str, Any]] = mapped_column(comment="pydantic-ai's ModelMessage as JSON")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Conversation(Base):
    """A conversation's head: where its log ends, whose it is, and what its messages can't carry."""

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str | None] = mapped_column(comment="whose the conversation is")
    title: Mapped[str | None] = mapped_column(comment="the beginning of its first message")
    # Checked when the transaction ends, so that a save can write the head, which decides whether it
    # counts, before the entries.
    head_id: Mapped[str | None] = mapped_column(
        ForeignKey("conversation_entries.id", deferrable=True, initially="DEFERRED"),
        index=True,
        comment="the newest entry of its log",
    )
    branches: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=text("'{}'::text[]"), comment="last entries of the branches it left"
    )
    forked_from: Mapped[str | None] = mapped_column(comment="the conversation it was forked from")
    forked_at: Mapped[str | None] = mapped_column(comment="the last entry the fork kept")
    usage: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    deferred_tool_requests: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    revision: Mapped[str] = mapped_column(comment="changes on every save; guards against lost updates")
    format_version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        # The list of conversations is read newest first, of one owner or of all.
        Index("ix_conversations_scope_updated_at", "scope", updated_at.desc()),
        Index("ix_conversations_updated_at", updated_at.desc()),
        # A delete asks whose branches an entry ends.
        Index("ix_conversations_branches", "branches", postgresql_using="gin"),
    )
