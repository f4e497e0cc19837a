"""Documents of owners: those there are stay everybody's.

Revision ID: c6f20d8e9a57
Revises: e4a1c8f70b36
Create Date: 2026-11-27 16:05:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects import postgresql

revision: str = "c6f20d8e9a57"
down_revision: str | Sequence[str] | None = "e4a1c8f70b36"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""
    op.add_column(
        "documents",
        sa.Column("owner", sa.Text(), nullable=True, comment="who alone is answered from it; NULL: all are"),
    )
    op.add_column("documents", sa.Column("collection", sa.Text(), nullable=True))
    op.add_column(
        "documents",
        sa.Column("name", sa.Text(), nullable=True, comment="what people read in place of the source"),
    )
    op.add_column(
        "documents", sa.Column("size", sa.BigInteger(), nullable=True, comment="bytes of the document")
    )
    op.add_column("documents", sa.Column("text", sa.Text(), nullable=True, comment="what was read in it"))
    # lint: allow index-under-lock -- a row is a document, of which there are thousands
    op.create_index(op.f("ix_documents_owner"), "documents", ["owner"], unique=False)
    op.create_table(
        "owned_passages",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="of model, title and text"),
        sa.Column("title", sa.Text(), nullable=False, comment="the headings that it stands under"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("embedding", VECTOR(1024), nullable=False),
        sa.Column(
            "words",
            postgresql.TSVECTOR(),
            sa.Computed(
                "setweight(to_tsvector('english'::regconfig, title), 'A'::\"char\") || "
                "setweight(to_tsvector('english'::regconfig, text), 'B'::\"char\")",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["source"],
            ["documents.source"],
            name=op.f("fk_owned_passages_source_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source", "hash", name=op.f("pk_owned_passages")),
    )
    op.create_index(
        "ix_owned_passages_words", "owned_passages", ["words"], unique=False, postgresql_using="gin"
    )


def downgrade() -> None:
    """Take the revision back. An owner's documents go: without the column they would be everybody's."""
    op.drop_index("ix_owned_passages_words", table_name="owned_passages", postgresql_using="gin")
    op.drop_table("owned_passages")
    op.execute("DELETE FROM documents WHERE owner IS NOT NULL")
    op.drop_index(op.f("ix_documents_owner"), table_name="documents")
    op.drop_column("documents", "text")
    op.drop_column("documents", "size")
    op.drop_column("documents", "name")
    op.drop_column("documents", "collection")
    op.drop_column("documents", "owner")
