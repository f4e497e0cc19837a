"""Documents that agents answer from, cut into passages that are found by meaning and by their words."""

from datetime import datetime

from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import BigInteger, Computed, ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base

DIMENSIONS = 1024

# Whose endings are cut off words, so that "indexes" finds "index". Texts in other languages are found by their
# words as they stand. Another one of PostgreSQL's (\dF in psql) needs a revision and nothing else.
LANGUAGE = "english"
# Spelled as PostgreSQL does, or `alembic check` would see a difference.
WORDS = (
    f"setweight(to_tsvector('{LANGUAGE}'::regconfig, title), 'A'::\"char\") || "
    f"setweight(to_tsvector('{LANGUAGE}'::regconfig, text), 'B'::\"char\")"
)


class Document(Base):
    """A document that was read."""

    __tablename__ = "documents"

    source: Mapped[str] = mapped_column(primary_key=True, comment="its path, as it was ingested")
    hash: Mapped[bytes] = mapped_column(comment="of its passages; tells whether it has changed")
    model: Mapped[str] = mapped_column(comment="what made its vectors")
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    owner: Mapped[str | None] = mapped_column(
        index=True, comment="who alone is answered from it; NULL: all are"
    )
    # Of those that weren't read from the service's own folders.
    collection: Mapped[str | None]
    name: Mapped[str | None] = mapped_column(comment="what people read in place of the source")
    size: Mapped[int | None] = mapped_column(BigInteger, comment="bytes of the document")
    # Megabytes of each: whoever wants it says so.
    text: Mapped[str | None] = mapped_column(
        deferred=True, deferred_raiseload=True, comment="what was read in it"
    )


class PassageColumns:
    """What is known of a part of a document, small enough to be quoted to a model."""

    source: Mapped[str] = mapped_column(ForeignKey("documents.source", ondelete="CASCADE"), primary_key=True)
    hash: Mapped[bytes] = mapped_column(primary_key=True, comment="of model, title and text")
    title: Mapped[str] = mapped_column(comment="the headings that it stands under")
    text: Mapped[str]
    embedding: Mapped[Vector] = mapped_column(VECTOR(DIMENSIONS))
    words: Mapped[str] = mapped_column(TSVECTOR, Computed(WORDS, persisted=True))


class Passage(PassageColumns, Base):
    """A passage for all."""

    __tablename__ = "passages"

    __table_args__ = (
        Index(
            "ix_passages_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "vector_cosine_ops"},
        ),
        Index("ix_passages_words", "words", postgresql_using="gin"),
    )


class OwnedPassage(PassageColumns, Base):
    """A passage of a document that has an owner.

    Apart from the others, as 0.1.0 shows those to everybody, which may serve beside this version or after it. Nor
    has it an index on vectors, which would know no owners.
    """

    __tablename__ = "owned_passages"

    __table_args__ = (Index("ix_owned_passages_words", "words", postgresql_using="gin"),)


Passages = type[Passage] | type[OwnedPassage]
