"""Files, apart from the messages that name them: whoever lists or loads conversations doesn't carry them along."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class ApiFile(Base):
    """A file that somebody has sent. It goes with its conversation."""

    __tablename__ = "api_files"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner: Mapped[str] = mapped_column(index=True)
    conversation_id: Mapped[str | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), index=True, comment="NULL: it isn't said yet"
    )
    name: Mapped[str]
    media_type: Mapped[str] = mapped_column(comment="as its contents say")
    size: Mapped[int] = mapped_column(BigInteger, comment="bytes")
    chars: Mapped[int] = mapped_column(BigInteger, comment="about what it takes of a model's window")
    sha256: Mapped[bytes]
    content: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        # What was uploaded and never said is looked for by its age.
        Index("ix_api_files_waiting", "created_at", postgresql_where=text("conversation_id IS NULL")),
    )
