"""People who have called, and what each may use."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class ApiUser(Base):
    """A person. What is NULL of the limits is as the settings say."""

    __tablename__ = "api_users"

    id: Mapped[str] = mapped_column(
        primary_key=True, comment="user: and what the issuer calls the person; the owner of what they write"
    )
    requests_per_minute: Mapped[int | None]
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    cost_per_day: Mapped[Decimal | None] = mapped_column(comment="USD")
    # The minute that the requests are counted in; one row, so that the limit holds for all replicas.
    window_started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    window_requests: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    blocked_at: Mapped[datetime | None]
