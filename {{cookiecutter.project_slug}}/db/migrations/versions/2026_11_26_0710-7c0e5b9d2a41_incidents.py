"""Incidents.

Revision ID: 7c0e5b9d2a41
Revises: 2f6a91c0d7e3
Create Date: 2026-11-26 07:10:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "7c0e5b9d2a41"
down_revision: str | Sequence[str] | None = "2f6a91c0d7e3"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""
    sa.Enum("low", "medium", "high", "critical", name="incident_severity").create(op.get_bind())
    sa.Enum("outage", "performance", "security", "data", "access", "other", name="incident_category").create(
        op.get_bind()
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column(
            "category",
            postgresql.ENUM(
                "outage",
                "performance",
                "security",
                "data",
                "access",
                "other",
                name="incident_category",
                create_type=False,
            ),
            nullable=False,
        ),
        sa.Column(
            "severity",
            postgresql.ENUM("low", "medium", "high", "critical", name="incident_severity", create_type=False),
            nullable=False,
        ),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("affected", sa.Text(), nullable=True, comment="the system or people that it hits"),
        sa.Column("request", sa.Text(), nullable=True, comment="what the reporter asks for"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_incidents_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        sa.UniqueConstraint("run_id", name=op.f("uq_incidents_run_id")),
    )
    op.create_index("ix_incidents_owner_created_at", "incidents", ["owner", "created_at"], unique=False)


def downgrade() -> None:
    """Take the revision back."""
    op.drop_index("ix_incidents_owner_created_at", table_name="incidents")
    op.drop_table("incidents")
    sa.Enum("outage", "performance", "security", "data", "access", "other", name="incident_category").drop(
        op.get_bind()
    )
    sa.Enum("low", "medium", "high", "critical", name="incident_severity").drop(op.get_bind())
