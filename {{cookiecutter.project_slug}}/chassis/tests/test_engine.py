"""The pool of connections: what is taken from it comes back, whatever becomes of those who took it."""

import asyncio
import gc
import warnings

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SAWarning
from sqlalchemy.pool import QueuePool

from chassis.database.engine import Sessions

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("single", [True, False], ids=["statement", "session"])
async def test_connection_comes_back_wherever_its_user_is_cancelled(sessions: Sessions, single: bool) -> None:
    async def work() -> None:
        if single:
            async with sessions.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        else:
            async with sessions() as session:
                await session.execute(text("SELECT 1"))

    pool = sessions.engine.pool
    assert isinstance(pool, QueuePool)
    await work()
    for steps in range(30):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            task = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert pool.checkedout() == 0, f"after {steps} steps"
            del task
            gc.collect()
        assert [str(warning.message) for warning in told if warning.category is SAWarning] == []
    # Nor is one left with the isolation level of a session: a single statement is written without a commit.
    async with sessions.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE kept (id integer)"))
    async with sessions() as session:
        await session.execute(text("DROP TABLE kept"))
        await session.commit()
