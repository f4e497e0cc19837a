# mypy: allow-untyped-calls
"""Models as public projects have them, rebuilt in small: what meets in them meets nowhere in a table of single changes."""

import enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chassis.tests.migrations.history import new_metadata


def forum() -> sa.MetaData:
    """Self-references, composite keys, an association with data, counters, full text."""

    class Base(DeclarativeBase):
        metadata = new_metadata()

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True), primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(60), unique=True)
        email: Mapped[str] = mapped_column(sa.Text)
        trust: Mapped[int] = mapped_column(sa.SmallInteger, server_default="0")
        __table_args__ = (
            sa.Index("ix_users_email_lower", sa.text("lower(email)"), unique=True),
            sa.CheckConstraint(r"email ~ '^[^@]+@[^@]+$' AND email !~ '\:\:'", name="email"),
        )

    class Category(Base):
        __tablename__ = "categories"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(
            sa.ForeignKey("categories.id", ondelete="SET NULL"), index=True
        )
        slug: Mapped[str]
        __table_args__ = (sa.UniqueConstraint("parent_id", "slug", postgresql_nulls_not_distinct=True),)

    class Topic(Base):
        __tablename__ = "topics"
        id: Mapped[int] = mapped_column(primary_key=True)
        category_id: Mapped[int] = mapped_column(sa.ForeignKey("categories.id"))
        last_post_id: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id", use_alter=True))
        pinned_until: Mapped[Any] = mapped_column(sa.DateTime(timezone=True), nullable=True)
        __table_args__ = (
            sa.Index("ix_topics_pinned", "category_id", postgresql_where=sa.text("pinned_until IS NOT NULL")),
        )

    class Post(Base):
        __tablename__ = "posts"
        id: Mapped[int] = mapped_column(primary_key=True)
        topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id", ondelete="CASCADE"))
        reply_to: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id"))
        raw: Mapped[str] = mapped_column(sa.Text)
        words: Mapped[Any] = mapped_column(
            pg.TSVECTOR, sa.Computed("to_tsvector('english'::regconfig, raw)", persisted=True)
        )
        __table_args__ = (sa.Index("ix_posts_words", "words", postgresql_using="gin"),)

    class Like(Base):
        __tablename__ = "likes"
        user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
        post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
        at: Mapped[Any] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())

    return Base.metadata


def shop() -> sa.MetaData:
    """Joined and single-table inheritance, money, periods that must not overlap, several schemas."""

    class Base(DeclarativeBase):
        metadata = new_metadata()

    class Party(Base):
        __tablename__ = "parties"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.String(20))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "party"}  # noqa: RUF012

    class Company(Party):
        __tablename__ = "companies"
        id: Mapped[int] = mapped_column(sa.ForeignKey("parties.id"), primary_key=True)
        tax_number: Mapped[str] = mapped_column(sa.String(20), unique=True)
        __mapper_args__ = {"polymorphic_identity": "company"}  # noqa: RUF012

    class Person(Party):
        birthday: Mapped[Any] = mapped_column(sa.Date, nullable=True)
        __mapper_args__ = {"polymorphic_identity": "person"}  # noqa: RUF012

    class Product(Base):
        __tablename__ = "products"
        sku: Mapped[str] = mapped_column(sa.String(32, collation="C"), primary_key=True)
        attributes: Mapped[Any] = mapped_column(pg.JSONB, server_default=sa.text("'{}'::jsonb"))
        tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text), server_default=sa.text("'{}'::text[]"))
        net: Mapped[Any] = mapped_column(sa.Numeric(12, 2))
        vat: Mapped[Any] = mapped_column(sa.Numeric(4, 2), server_default="19")
        gross: Mapped[Any] = mapped_column(
            sa.Numeric(12, 2), sa.Computed("net * (1 + vat / 100)", persisted=True)
        )
        __table_args__ = (
            sa.Index(
                "ix_products_attributes",
                "attributes",
                postgresql_using="gin",
                postgresql_ops={"attributes": "jsonb_path_ops"},
            ),
            sa.CheckConstraint("net >= 0 AND vat BETWEEN 0 AND 100", name="money"),
        )

    class Price(Base):
        __tablename__ = "prices"
        id: Mapped[int] = mapped_column(primary_key=True)
        sku: Mapped[str] = mapped_column(
            sa.ForeignKey("products.sku", onupdate="CASCADE", deferrable=True, initially="DEFERRED")
        )
        valid: Mapped[Any] = mapped_column(pg.DATERANGE)
        __table_args__ = (pg.ExcludeConstraint(("valid", "&&"), name="prices_valid"),)

    class State(enum.Enum):
        NEW = "new"
        WONT_SHIP = "won't ship"

    class Order(Base):
        __tablename__ = "order"
        number: Mapped[int] = mapped_column(
            sa.BigInteger, sa.Identity(start=100000, cache=20), primary_key=True
        )
        state: Mapped[State] = mapped_column(
            sa.Enum(State, name="order_state", values_callable=lambda states: [s.value for s in states]),
            server_default="new",
        )
        party_id: Mapped[int] = mapped_column(sa.ForeignKey("parties.id"))

    class Audit(Base):
        __tablename__ = "log"
        id: Mapped[Any] = mapped_column(
            sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")
        )
        order_number: Mapped[int] = mapped_column(sa.ForeignKey("order.number"))
        change: Mapped[Any] = mapped_column(sa.JSON, server_default="{}")
        __table_args__ = {"schema": "audit"}  # noqa: RUF012

    return Base.metadata


def job_queue() -> sa.MetaData:
    """A partitioned log, an unlogged table, partial unique indexes, intervals."""

    class Base(DeclarativeBase):
        metadata = new_metadata()

    class Job(Base):
        __tablename__ = "jobs"
        id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
        queue: Mapped[str] = mapped_column(sa.Text, server_default="default")
        lock: Mapped[str | None] = mapped_column(sa.Text)
        status: Mapped[str] = mapped_column(
            sa.Enum("todo", "doing", "done", name="job_status"), server_default="todo"
        )
        attempts: Mapped[int] = mapped_column(server_default="0")
        every: Mapped[Any] = mapped_column(sa.Interval, nullable=True)
        at: Mapped[Any] = mapped_column(
            pg.TIMESTAMP(timezone=True, precision=3), server_default=sa.text("clock_timestamp()")
        )
        __table_args__ = (
            sa.Index(
                "uq_jobs_lock", "queue", "lock", unique=True, postgresql_where=sa.text("status = 'doing'")
            ),
            sa.Index("ix_jobs_next", "queue", sa.text("at DESC NULLS LAST"), postgresql_include=["attempts"]),
        )

    class Event(Base):
        __tablename__ = "events"
        job_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
        at: Mapped[Any] = mapped_column(
            sa.DateTime(timezone=True), primary_key=True, server_default=sa.func.now()
        )
        kind: Mapped[str] = mapped_column(sa.String(20))
        __table_args__ = (sa.Index("ix_events_kind", "kind"), {"postgresql_partition_by": "RANGE (at)"})

    class Worker(Base):
        __tablename__ = "workers"
        name: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
        beat: Mapped[Any] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
        __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012

    return Base.metadata


def cms() -> sa.MetaData:
    """Association tables, a tree, translations with composite foreign keys, comments with all signs."""

    class Base(DeclarativeBase):
        metadata = new_metadata()

    page_tags = sa.Table(
        "page_tags",
        Base.metadata,
        sa.Column("page_id", sa.ForeignKey("pages.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", sa.ForeignKey("tags.name", onupdate="CASCADE"), primary_key=True),
    )

    class Tag(Base):
        __tablename__ = "tags"
        name: Mapped[str] = mapped_column(sa.String(50), primary_key=True)

    class Page(Base):
        __tablename__ = "pages"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("pages.id"))
        path: Mapped[str] = mapped_column(sa.Text, comment="it's 100% the path: from :root")
        live: Mapped[bool] = mapped_column(server_default=sa.false())
        tags: Mapped[list[Tag]] = relationship(secondary=page_tags)
        __table_args__ = (
            sa.Index("ix_pages_path", "path", postgresql_ops={"path": "text_pattern_ops"}),
            sa.CheckConstraint("path LIKE '/%' AND path NOT LIKE '%//%'", name="path"),
            {"comment": "the tree"},
        )

    class Translation(Base):
        __tablename__ = "translations"
        page_id: Mapped[int] = mapped_column(sa.ForeignKey("pages.id"), primary_key=True)
        language: Mapped[str] = mapped_column(sa.CHAR(2), primary_key=True)
        title: Mapped[str] = mapped_column(sa.Text)

    class Revision(Base):
        __tablename__ = "revisions"
        id: Mapped[int] = mapped_column(primary_key=True)
        page_id: Mapped[int]
        language: Mapped[str] = mapped_column(sa.CHAR(2))
        body: Mapped[Any] = mapped_column(pg.JSONB(none_as_null=True), nullable=True)
        __table_args__ = (
            sa.ForeignKeyConstraint(
                ["page_id", "language"], ["translations.page_id", "translations.language"], ondelete="CASCADE"
            ),
        )

    return Base.metadata


MODELS = (forum, shop, job_queue, cms)
