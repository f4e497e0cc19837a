"""What a key may use: runs a minute and tokens a day, counted in PostgreSQL, so that they hold for all replicas."""

import time
from datetime import date
from http import HTTPStatus

from sqlalchemy import ColumnElement, case, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.errors import RunError
from chassis.keys import tables
from chassis.keys.caller import Caller

TODAY: ColumnElement[date] = literal_column("(now() AT TIME ZONE 'UTC')::date")


async def admit(session: AsyncSession, caller: Caller) -> None:
    """Count a run that starts against the caller's limits, which hold over all replicas.

    Call it last in the transaction: until that ends, other runs of the same key wait here. What a run
    uses is known at its end only, so those underway may go beyond the day's tokens.

    Raises:
        RunError: for a run too many.
    """
    if caller.tokens_per_day is not None:
        usage = tables.ApiKeyUsage
        used = select(usage.input_tokens + usage.output_tokens).filter_by(owner=caller.owner, day=TODAY)
        if (await session.scalar(used) or 0) >= caller.tokens_per_day:
            raise _too_many(
                f"{caller.tokens_per_day} tokens a day (UTC)", 86400, "insufficient_quota", final=True
            )
    if caller.requests_per_minute is not None:
        key, minute = tables.ApiKey, func.date_trunc("minute", func.now())
        # One statement, which sees what the one that it waited for has written. That may be of a later minute.
        counting = key.window_started_at >= minute
        counted = (
            update(key)
            .where(key.id == caller.owner, ~counting | (key.window_requests < caller.requests_per_minute))
            .values(
                window_started_at=func.greatest(key.window_started_at, minute),
                window_requests=case((counting, key.window_requests + 1), else_=1),
            )
        )
        if (await session.execute(counted.returning(key.id))).first() is None:
            raise _too_many(f"{caller.requests_per_minute} runs a minute", 60, "rate_limit_exceeded")


def _too_many(limit: str, period: int, code: str, *, final: bool = False) -> Exception:
    left = period - time.time() % period
    detail = f"The key's limit is reached: {limit}."
    return RunError(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=left, code=code, final=final)
