"""What a key and a person may use: runs a minute, tokens and USD a day, counted in PostgreSQL for all replicas."""

import time
from datetime import date
from http import HTTPStatus

from sqlalchemy import ColumnElement, case, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.errors import RunError
from chassis.keys import tables
from chassis.keys.caller import KEY_ID, Caller, Keys
from chassis.users.accounts import Account, Users
from chassis.users.tables import ApiUser

TODAY: ColumnElement[date] = literal_column("(now() AT TIME ZONE 'UTC')::date")
DAY_SECONDS, MINUTE_SECONDS = 86_400, 60


async def admit(session: AsyncSession, caller: Caller) -> None:
    """Count a run that starts against the limits of the caller's accounts, which hold over all replicas.

    Call it last in the transaction: until that ends, other runs of the same accounts wait here. What a run
    uses is known at its end only, so those underway may go beyond the day's tokens and USD.

    Raises:
        RunError: for a run too many.
    """
    for account in caller.accounts:
        if account.tokens_per_day is not None or account.cost_per_day is not None:
            await _check_day(session, account)
    for account in caller.accounts:
        if account.requests_per_minute is not None:
            await _count(session, account, account.requests_per_minute)


async def admit_later(
    sessions: async_sessionmaker[AsyncSession], keys: Keys, users: Users, caller: Caller
) -> None:
    """Check what may have changed since a run was asked for that has waited: who asks, and the limits of the day.

    Raises:
        RunError: if a key was revoked or has expired, a person was blocked, or a limit is reached by now.
    """
    for account in caller.accounts:
        if account.is_person:
            found = await users.read_account(account.id)
        elif KEY_ID.fullmatch(account.id):
            found = await keys.read_account(account.id)
        else:
            continue  # Nobody's, as in development.
        if found is None:
            who = "person may not use the service" if account.is_person else "key isn't valid"
            raise RunError(HTTPStatus.FORBIDDEN, f"The {who} any more.", final=True)
        if found.tokens_per_day is not None or found.cost_per_day is not None:
            async with sessions() as session:
                await _check_day(session, found)


async def _check_day(session: AsyncSession, account: Account) -> None:
    usage = tables.ApiKeyUsage
    used = select(usage.input_tokens + usage.output_tokens, usage.cost)
    today = used.where(usage.owner == account.id, usage.day == TODAY)
    tokens, cost = (await session.execute(today)).one_or_none() or (0, 0)
    if account.tokens_per_day is not None and tokens >= account.tokens_per_day:
        limit = f"{account.tokens_per_day} tokens a day (UTC)"
    elif account.cost_per_day is not None and cost >= account.cost_per_day:
        limit = f"{account.cost_per_day:f} USD a day (UTC)"
    else:
        return
    raise _too_many(account, limit, DAY_SECONDS, "insufficient_quota", final=True)


async def _count(session: AsyncSession, account: Account, limit: int) -> None:
    # One statement, which sees what the one that it waited for has written. That may be of a later minute.
    minute = func.date_trunc("minute", func.now())
    table: type[ApiUser | tables.ApiKey] = ApiUser if account.is_person else tables.ApiKey
    counting = table.window_started_at >= minute
    values = {
        "window_started_at": func.greatest(table.window_started_at, minute),
        "window_requests": case((counting, table.window_requests + 1), else_=1),
    }
    is_free = ~counting | (table.window_requests < limit)
    if account.is_person:
        first = insert(ApiUser).values(id=account.id, window_started_at=minute, window_requests=1)
        counted = first.on_conflict_do_update(index_elements=["id"], set_=values, where=is_free)
        found = await session.execute(counted.returning(ApiUser.id))
    else:
        updated = update(tables.ApiKey).where(tables.ApiKey.id == account.id, is_free).values(values)
        found = await session.execute(updated.returning(tables.ApiKey.id))
    if found.first() is None:
        raise _too_many(account, f"{limit} runs a minute", MINUTE_SECONDS, "rate_limit_exceeded")


def _too_many(account: Account, limit: str, period: int, code: str, *, final: bool = False) -> Exception:
    left = period - time.time() % period
    detail = f"The {'user' if account.is_person else 'key'}'s limit is reached: {limit}."
    return RunError(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=left, code=code, final=final)
