"""`/v1/usage`: what the caller's runs have used, day by day."""

from datetime import date
from decimal import Decimal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from chassis.http.dependencies import SessionsOf
from chassis.keys.authentication import CallerOf
from chassis.keys.tables import ApiKeyUsage

DAYS = 31

router = APIRouter(prefix="/v1/usage", tags=["usage"])


class DayView(BaseModel):
    """A day (UTC); `cost` is in USD, as far as the models' prices are known."""

    day: date
    runs: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: Decimal


class UsageList(BaseModel):
    """The last days with a run, the newest first."""

    days: list[DayView]


@router.get("")
async def list_usage(sessions: SessionsOf, caller: CallerOf) -> UsageList:
    """List what was used, which stays when conversations are deleted."""
    table = ApiKeyUsage
    query = select(table).where(table.owner == caller.owner).order_by(table.day.desc()).limit(DAYS)
    async with sessions() as session:
        rows = await session.scalars(query)
        return UsageList(days=[DayView.model_validate(row, from_attributes=True) for row in rows])
