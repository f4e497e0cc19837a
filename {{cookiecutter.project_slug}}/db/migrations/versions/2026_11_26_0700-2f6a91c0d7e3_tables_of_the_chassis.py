"""Tables of the chassis.

Revision ID: 2f6a91c0d7e3
Revises: nothing
Create Date: 2026-11-26 07:00:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2f6a91c0d7e3"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""
    sa.Enum("running", "succeeded", "failed", "cancelled", "interrupted", name="run_status").create(
        op.get_bind()
    )
    op.create_table(
        "api_key_usage",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("runs", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "cost",
            sa.Numeric(),
            server_default=sa.text("0"),
            nullable=False,
            comment="USD, as far as prices are known",
        ),
        sa.PrimaryKeyConstraint("owner", "day", name=op.f("pk_api_key_usage")),
    )
    op.create_table(
        "api_keys",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="the first part of the key, and its owner's scope"
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False, comment="SHA-256 of the secret, in hex"),
        sa.Column(
            "agents", sa.ARRAY(sa.Text()), nullable=True, comment="ids of the agents it may run; NULL: all"
        ),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_day", sa.BigInteger(), nullable=True),
        sa.Column(
            "window_started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("window_requests", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "conversation_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True, comment="the entry before this one"),
        sa.Column("kind", sa.Text(), server_default="message", nullable=False),
        sa.Column(
            "message",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="pydantic-ai's ModelMessage as JSON",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["conversation_entries.id"],
            name=op.f("fk_conversation_entries_parent_id_conversation_entries"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversation_entries")),
    )
    op.create_index(
        op.f("ix_conversation_entries_parent_id"), "conversation_entries", ["parent_id"], unique=False
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=True, comment="whose the conversation is"),
        sa.Column("title", sa.Text(), nullable=True, comment="the beginning of its first message"),
        sa.Column("head_id", sa.Text(), nullable=True, comment="the newest entry of its log"),
        sa.Column(
            "branches",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'::text[]"),
            nullable=False,
            comment="last entries of the branches it left",
        ),
        sa.Column("forked_from", sa.Text(), nullable=True, comment="the conversation it was forked from"),
        sa.Column("forked_at", sa.Text(), nullable=True, comment="the last entry the fork kept"),
        sa.Column(
            "usage",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "deferred_tool_requests",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
        ),
        sa.Column(
            "revision",
            sa.Text(),
            nullable=False,
            comment="changes on every save; guards against lost updates",
        ),
        sa.Column("format_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["head_id"],
            ["conversation_entries.id"],
            name=op.f("fk_conversations_head_id_conversation_entries"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
    )
    op.create_index(
        "ix_conversations_branches", "conversations", ["branches"], unique=False, postgresql_using="gin"
    )
    op.create_index(op.f("ix_conversations_head_id"), "conversations", ["head_id"], unique=False)
    op.create_index(
        "ix_conversations_scope_updated_at",
        "conversations",
        ["scope", sa.literal_column("updated_at DESC")],
        unique=False,
    )
    op.create_index(
        "ix_conversations_updated_at", "conversations", [sa.literal_column("updated_at DESC")], unique=False
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column(
            "status",
            postgresql.ENUM(
                "running",
                "succeeded",
                "failed",
                "cancelled",
                "interrupted",
                name="run_status",
                create_type=False,
            ),
            server_default="running",
            nullable=False,
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="what went wrong, in words fit for the caller"),
        sa.Column(
            "usage",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "owner",
            sa.Text(),
            server_default="anonymous",
            nullable=False,
            comment="whose run it is: the id of an API key",
        ),
        sa.Column(
            "output",
            postgresql.JSON(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="the answer",
        ),
        sa.Column(
            "idempotency_key",
            sa.Text(),
            nullable=True,
            comment="the caller's, to send a request twice safely",
        ),
        sa.Column("request_hash", sa.Text(), nullable=True, comment="of the request that came with the key"),
        sa.Column(
            "alive_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when its process last said so",
        ),
        sa.Column(
            "watched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when another process last read its events",
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_runs_conversation_id_conversations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_conversation_id_started_at",
        "runs",
        ["conversation_id", sa.literal_column("started_at DESC")],
        unique=False,
    )
    op.create_index(
        "uq_runs_conversation_id_running",
        "runs",
        ["conversation_id"],
        unique=True,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "uq_runs_owner_idempotency_key",
        "runs",
        ["owner", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL AND status IN ('running', 'succeeded')"),
    )
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False, comment="the number of the last of them"),
        sa.Column("events", sa.Text(), nullable=False, comment="JSON: [[name, data], ...]"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_run_events_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "last", name=op.f("pk_run_events")),
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("ix_run_events_created_at"), "run_events", ["created_at"], unique=False)


def downgrade() -> None:
    """Take the revision back."""
    op.drop_index(op.f("ix_run_events_created_at"), table_name="run_events")
    op.drop_table("run_events")
    op.drop_index(
        "uq_runs_owner_idempotency_key",
        table_name="runs",
        postgresql_where=sa.text("idempotency_key IS NOT NULL AND status IN ('running', 'succeeded')"),
    )
    op.drop_index(
        "uq_runs_conversation_id_running", table_name="runs", postgresql_where=sa.text("status = 'running'")
    )
    op.drop_index("ix_runs_conversation_id_started_at", table_name="runs")
    op.drop_table("runs")
    op.drop_index("ix_conversations_updated_at", table_name="conversations")
    op.drop_index("ix_conversations_scope_updated_at", table_name="conversations")
    op.drop_index(op.f("ix_conversations_head_id"), table_name="conversations")
    op.drop_index("ix_conversations_branches", table_name="conversations", postgresql_using="gin")
    op.drop_table("conversations")
    op.drop_index(op.f("ix_conversation_entries_parent_id"), table_name="conversation_entries")
    op.drop_table("conversation_entries")
    op.drop_table("api_keys")
    op.drop_table("api_key_usage")
    sa.Enum("running", "succeeded", "failed", "cancelled", "interrupted", name="run_status").drop(
        op.get_bind()
    )
