"""People who call.

Revision ID: 9b4d7e2c81f0
Revises: 2f6a91c0d7e3
Create Date: 2026-11-27 16:00:00+00:00
"""

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "9b4d7e2c81f0"
down_revision: str | Sequence[str] | None = "2f6a91c0d7e3"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The tables and functions of procrastinate, the engine of runs in the background, are in a file beside this one.
_, *ENGINE = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").split("\n---\n")
# Types and functions by their names: no function has another one's. Those that a trigger calls go with its table.
DROP_ENGINE = (
    "DROP TABLE procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs, procrastinate_workers CASCADE",
    "DROP FUNCTION procrastinate_defer_jobs_v1",
    "DROP FUNCTION procrastinate_defer_periodic_job_v2",
    "DROP FUNCTION procrastinate_finish_job_v1",
    "DROP FUNCTION procrastinate_cancel_job_v1",
    "DROP FUNCTION procrastinate_retry_job_v1",
    "DROP FUNCTION procrastinate_retry_job_v2",
    "DROP FUNCTION procrastinate_notify_queue_job_inserted_v1",
    "DROP FUNCTION procrastinate_notify_queue_abort_job_v1",
    "DROP FUNCTION procrastinate_trigger_function_status_events_insert_v1",
    "DROP FUNCTION procrastinate_trigger_function_status_events_update_v1",
    "DROP FUNCTION procrastinate_trigger_function_scheduled_events_v1",
    "DROP FUNCTION procrastinate_trigger_abort_requested_events_procedure_v1",
    "DROP FUNCTION procrastinate_unlink_periodic_defers_v1",
    "DROP FUNCTION procrastinate_register_worker_v1",
    "DROP FUNCTION procrastinate_unregister_worker_v1",
    "DROP FUNCTION procrastinate_update_heartbeat_v1",
    "DROP FUNCTION procrastinate_prune_stalled_workers_v1",
    "DROP TYPE procrastinate_job_to_defer_v1",
    "DROP TYPE procrastinate_job_event_type",
    "DROP TYPE procrastinate_job_status",
)


def upgrade() -> None:
    """Apply the revision."""
    _let_runs_wait()
    # lint: allow several-tables-locked -- neither takes time, and the service locks them in this order too
    op.create_table(
        "api_users",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="user: and what the issuer calls the person; the owner of what they write",
        ),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_day", sa.BigInteger(), nullable=True),
        sa.Column("cost_per_day", sa.Numeric(), nullable=True, comment="USD"),
        sa.Column(
            "window_started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("window_requests", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_users")),
    )
    op.create_table(
        "api_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=True, comment="NULL: it isn't said yet"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False, comment="as its contents say"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes"),
        sa.Column(
            "chars", sa.BigInteger(), nullable=False, comment="about what it takes of a model's window"
        ),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_api_files_conversation_id_conversations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_files")),
    )
    op.create_index(op.f("ix_api_files_conversation_id"), "api_files", ["conversation_id"], unique=False)
    op.create_index(op.f("ix_api_files_owner"), "api_files", ["owner"], unique=False)
    op.create_index(
        "ix_api_files_waiting",
        "api_files",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("conversation_id IS NULL"),
    )
    op.add_column(
        "runs",
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=True,
            comment="how often a run in the background was begun, 0 while it waits; NULL: it runs within its request",
        ),
    )
    op.create_table(
        "background_runs",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column(
            "accounts",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="the keys and people that it counts for",
        ),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True, comment="the one that the request names"),
        sa.Column(
            "replaces", sa.Text(), nullable=True, comment="the message of the user's whose place it takes"
        ),
        sa.Column("webhook", sa.Text(), nullable=True, comment="the address that is told of its end"),
        sa.Column(
            "messages",
            sa.Text(),
            nullable=True,
            comment="JSON: what the model and the tools have said so far",
        ),
        sa.Column(
            "handed_back",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="attempts that the orderly end of their process cut off",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_background_runs_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_background_runs")),
    )
    op.create_table(
        "background_calls",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("tool_call_id", sa.Text(), nullable=False),
        sa.Column(
            "result",
            sa.Text(),
            nullable=True,
            comment="JSON; NULL: it was begun, and nobody knows how it ended",
        ),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_background_calls_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "tool_call_id", name=op.f("pk_background_calls")),
    )
    for statement in ENGINE:
        op.execute(statement)
    op.add_column("api_keys", sa.Column("cost_per_day", sa.Numeric(), nullable=True, comment="USD"))
    op.add_column(
        "api_keys",
        sa.Column(
            "acts_for_users",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether it may name the person that it calls for",
        ),
    )
    sa.Enum("up", "down", name="feedback_thumb").create(op.get_bind())
    op.create_table(
        "run_feedback",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False, comment="whose run it is"),
        sa.Column(
            "thumb", postgresql.ENUM("up", "down", name="feedback_thumb", create_type=False), nullable=False
        ),
        sa.Column("words", sa.Text(), nullable=True),
        sa.Column("given_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_run_feedback_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_feedback")),
    )
    op.add_column(
        "api_keys",
        sa.Column(
            "manages_documents",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether it may change the documents that are for all",
        ),
    )


def downgrade() -> None:
    """Take the revision back."""
    _let_runs_wait_no_more()
    op.drop_table("run_feedback")
    sa.Enum("up", "down", name="feedback_thumb").drop(op.get_bind())
    op.drop_column("api_keys", "manages_documents")
    for statement in DROP_ENGINE:
        op.execute(statement)
    op.drop_table("background_calls")
    op.drop_table("background_runs")
    op.drop_column("runs", "attempts")
    op.drop_column("api_keys", "acts_for_users")
    op.drop_column("api_keys", "cost_per_day")
    op.drop_table("api_files")
    op.drop_table("api_users")


def _let_runs_wait() -> None:
    """Runs may wait for a person's word on a call of a tool.

    Statement by statement, so that no lock is held for long, and first, so that all of it can be run again.
    """
    # What is built concurrently waits for all that is underway in the database, be it another project's.
    has_rows = op.get_context().as_sql or bool(
        op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM runs)"))
    )
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE run_status ADD VALUE IF NOT EXISTS 'waiting'")
        op.execute("ALTER TYPE run_status ADD VALUE IF NOT EXISTS 'continued'")
        op.add_column(
            "runs",
            # lint: allow json-column -- people are shown it in its order, and the table has such a column
            sa.Column(
                "calls", sa.JSON(), nullable=True, comment="calls of tools that a person was asked about"
            ),
            if_not_exists=True,
        )
        op.add_column(
            "runs",
            sa.Column(
                "continued_by", sa.Uuid(), nullable=True, comment="the run that went on with the answer"
            ),
            if_not_exists=True,
        )
        # One that was cut off is there, half-made.
        for index in ("ix_runs_conversation_id_calls", "uq_runs_owner_idempotency_key_new"):
            op.drop_index(index, "runs", postgresql_concurrently=has_rows, if_exists=True)
        op.create_index(
            "ix_runs_conversation_id_calls",
            "runs",
            ["conversation_id"],
            postgresql_where=sa.text("calls IS NOT NULL"),
            postgresql_concurrently=has_rows,
        )
        # Under its own name only once the one before is gone.
        op.create_index(
            "uq_runs_owner_idempotency_key_new",
            "runs",
            ["owner", "idempotency_key"],
            unique=True,
            postgresql_where=sa.text(
                "idempotency_key IS NOT NULL AND status NOT IN ('failed', 'cancelled', 'interrupted')"
            ),
            postgresql_concurrently=has_rows,
        )
        op.drop_index(
            "uq_runs_owner_idempotency_key", "runs", postgresql_concurrently=has_rows, if_exists=True
        )
        op.execute("ALTER INDEX uq_runs_owner_idempotency_key_new RENAME TO uq_runs_owner_idempotency_key")


def _let_runs_wait_no_more() -> None:
    op.execute("UPDATE runs SET status = 'succeeded' WHERE status = 'continued'")
    op.execute("UPDATE runs SET status = 'cancelled' WHERE status = 'waiting'")
    op.drop_index("uq_runs_owner_idempotency_key", "runs")
    op.drop_index("uq_runs_conversation_id_running", "runs")
    op.drop_index("ix_runs_conversation_id_calls", "runs")
    op.drop_column("runs", "continued_by")
    op.drop_column("runs", "calls")
    op.execute("ALTER TYPE run_status RENAME TO run_status_old")
    op.execute(
        "CREATE TYPE run_status AS ENUM ('running', 'succeeded', 'failed', 'cancelled', 'interrupted')"
    )
    op.execute("ALTER TABLE runs ALTER COLUMN status DROP DEFAULT")
    op.execute("ALTER TABLE runs ALTER COLUMN status TYPE run_status USING status::text::run_status")
    op.execute("ALTER TABLE runs ALTER COLUMN status SET DEFAULT 'running'")
    op.execute("DROP TYPE run_status_old")
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
