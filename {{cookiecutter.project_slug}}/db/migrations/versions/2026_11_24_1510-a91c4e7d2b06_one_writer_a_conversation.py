"""One writer a conversation, and idempotency keys.

Revision ID: a91c4e7d2b06
Revises: 5e0b6d1a94c7
Create Date: 2026-11-24 15:10:00.000000+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "a91c4e7d2b06"
down_revision: str | Sequence[str] | None = "5e0b6d1a94c7"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""
    with op.get_context().autocommit_block():
        # Runs whose process was killed look as if they went on; no run takes an hour.
        op.execute("""
            UPDATE runs SET status = 'interrupted', finished_at = now()
             WHERE status = 'running' AND started_at < now() - interval '1 hour'
        """)
        op.create_index(
            "uq_runs_conversation_id_running",
            "runs",
            ["conversation_id"],
            unique=True,
            postgresql_where=sa.text("status = 'running'"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "uq_runs_owner_idempotency_key",
            "runs",
            ["owner", "idempotency_key"],
            unique=True,
            postgresql_where=sa.text("idempotency_key IS NOT NULL AND status IN ('running', 'succeeded')"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    """Take the revision back."""
    with op.get_context().autocommit_block():
        op.drop_index("uq_runs_owner_idempotency_key", "runs", postgresql_concurrently=True)
        op.drop_index("uq_runs_conversation_id_running", "runs", postgresql_concurrently=True)
