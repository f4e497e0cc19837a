"""Knowledge: documents, and their passages with vectors.

Revision ID: e4a1c8f70b36
Revises: 2f6a91c0d7e3
Create Date: 2026-11-26 07:20:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects import postgresql

revision: str = "e4a1c8f70b36"
down_revision: str | Sequence[str] | None = "2f6a91c0d7e3"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Where it is installed already, no right is needed. pgvector has hnsw since 0.5.
CREATE_EXTENSION = """
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS vector;
    IF NOT EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw') THEN
        RAISE EXCEPTION 'The extension "vector" is older than 0.5. As a superuser: ALTER EXTENSION vector UPDATE';
    END IF;
    IF to_regtype('vector') IS NULL THEN
        RAISE EXCEPTION 'The extension "vector" is in the schema %, which is not in the search path. Add it: '
            'ALTER DATABASE % SET search_path = "$user", public, %',
            (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'vector'),
            quote_ident(current_database()),
            (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'vector');
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'The role % must not install the extension "vector". As a superuser, once in the '
            'database %: CREATE EXTENSION vector', current_user, current_database();
    WHEN feature_not_supported OR undefined_file THEN
        RAISE EXCEPTION 'This PostgreSQL server has no extension "vector". Install pgvector on it: '
            'https://github.com/pgvector/pgvector#installation';
END $$
"""


def upgrade() -> None:
    """Apply the revision."""
    op.execute(CREATE_EXTENSION)
    op.create_table(
        "documents",
        sa.Column("source", sa.Text(), nullable=False, comment="its path, as it was ingested"),
        sa.Column(
            "hash", sa.LargeBinary(), nullable=False, comment="of its passages; tells whether it has changed"
        ),
        sa.Column("model", sa.Text(), nullable=False, comment="what made its vectors"),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_documents")),
    )
    op.create_table(
        "passages",
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
            ["source"], ["documents.source"], name=op.f("fk_passages_source_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source", "hash", name=op.f("pk_passages")),
    )
    op.create_index(
        "ix_passages_embedding",
        "passages",
        ["embedding"],
        unique=False,
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_cosine_ops"},
    )
    op.create_index("ix_passages_words", "passages", ["words"], unique=False, postgresql_using="gin")


def downgrade() -> None:
    """Take the revision back. The extension stays: others may use it, or an administrator installed it."""
    op.drop_index("ix_passages_words", table_name="passages", postgresql_using="gin")
    op.drop_index("ix_passages_embedding", table_name="passages", postgresql_using="hnsw")
    op.drop_table("passages")
    op.drop_table("documents")
