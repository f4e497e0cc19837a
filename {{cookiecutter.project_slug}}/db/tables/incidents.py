"""Incidents: what the agent of the same name makes of a report in free words."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Enum, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from chassis.database.base import Base


class IncidentCategory(StrEnum):
    """What kind of trouble it is."""

    OUTAGE = "outage"
    PERFORMANCE = "performance"
    SECURITY = "security"
    DATA = "data"
    ACCESS = "access"
    OTHER = "other"


class IncidentSeverity(StrEnum):
    """How bad it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def _enum(values: type[StrEnum], name: str) -> Enum:
    return Enum(values, name=name, values_callable=lambda members: [member.value for member in members])


class Incident(Base):
    """One incident. It goes with the run that recorded it, and so with the conversation."""

    __tablename__ = "incidents"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), unique=True)
    owner: Mapped[str]
    title: Mapped[str]
    category: Mapped[IncidentCategory] = mapped_column(_enum(IncidentCategory, "incident_category"))
    severity: Mapped[IncidentSeverity] = mapped_column(_enum(IncidentSeverity, "incident_severity"))
    summary: Mapped[str]
    affected: Mapped[str | None] = mapped_column(comment="the system or people that it hits")
    request: Mapped[str | None] = mapped_column(comment="what the reporter asks for")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    # An owner's list is read newest first.
    __table_args__ = (Index("ix_incidents_owner_created_at", "owner", "created_at"),)
