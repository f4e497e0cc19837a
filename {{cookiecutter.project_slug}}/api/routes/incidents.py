"""`/v1/incidents`: what the agent of the same name has recorded for the caller."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Text, cast, select

from agents.incidents import RecordedIncident
from chassis.http.dependencies import SessionsOf
from chassis.http.pagination import Cursor, Limit, after, encode_cursor
from chassis.keys.authentication import CallerOf
from db.tables.incidents import Incident

router = APIRouter(prefix="/v1/incidents", tags=["incidents"])


class IncidentView(RecordedIncident, from_attributes=True):
    """An incident, and the run that recorded it."""

    run_id: UUID
    created_at: datetime


class IncidentList(BaseModel):
    """The caller's incidents, the newest first."""

    incidents: list[IncidentView]
    next_cursor: str | None = None


@router.get("")
async def list_incidents(
    sessions: SessionsOf, caller: CallerOf, limit: Limit = 50, cursor: Cursor = None
) -> IncidentList:
    """List the incidents, the newest first."""
    time, key = Incident.created_at, cast(Incident.id, Text)
    query = select(Incident).where(Incident.owner == caller.owner).order_by(time.desc(), key.desc())
    if cursor:
        query = query.where(after(cursor, time, key))
    async with sessions() as session:
        rows = (await session.scalars(query.limit(limit + 1))).all()
    page = [IncidentView.model_validate(row) for row in rows[:limit]]
    more = len(rows) > limit
    return IncidentList(
        incidents=page, next_cursor=encode_cursor(page[-1].created_at, str(page[-1].id)) if more else None
    )
