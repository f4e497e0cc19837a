"""API keys, what each may do, and what each has used."""

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import ARRAY, BigInteger, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class ApiKey(Base):
    """A key that callers show. Of its secret only the hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(
        primary_key=True, comment="the first part of the key, and its owner's scope"
    )
    name: Mapped[str]
    secret_hash: Mapped[str] = mapped_column(comment="SHA-256 of the secret, in hex")
    agents: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="ids of the agents it may run; NULL: all"
    )
    requests_per_minute: Mapped[int | None]
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    cost_per_day: Mapped[Decimal | None] = mapped_column(comment="USD")
    acts_for_users: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="whether it may name the person that it calls for"
    )
    manages_documents: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="whether it may change the documents that are for all"
    )
    # The minute that the requests are counted in; one row, so that the limit holds for all replicas.
    window_started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    window_requests: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ApiKeyUsage(Base):
    """What an owner's runs have used on a day (UTC). Stays when conversations are deleted."""

    __tablename__ = "api_key_usage"

    owner: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    runs: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    requests: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    cost: Mapped[Decimal] = mapped_column(server_default=text("0"), comment="USD, as far as prices are known")
