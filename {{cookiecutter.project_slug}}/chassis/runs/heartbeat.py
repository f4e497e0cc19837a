"""What a process does for its runs all the while: tell how many go on, write their events, and tidy."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from chassis.agents.settings import AgentSettings
from chassis.runs.load import LoadLog
from chassis.runs.runner import Runner

TICK_SECONDS = 0.25
# How long the events of streamed runs are kept beyond the time that a run may take.
EVENTS_SECONDS = 300

logger = logging.getLogger(__name__)


@asynccontextmanager
async def heartbeat(runner: Runner, settings: AgentSettings) -> AsyncIterator[None]:
    """Do it in the background of the block."""
    tasks = [
        asyncio.create_task(_keep_beating(runner, settings), name="heartbeat"),
        asyncio.create_task(runner.clock.keep(runner.time_out), name="clock"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(SQLAlchemyError):
            await _write_events(runner)


async def _keep_beating(runner: Runner, settings: AgentSettings) -> None:
    beat = tidy = 0.0
    load = LoadLog(settings.concurrent_runs)
    while True:
        load.note(len(runner.underway))
        try:
            await _write_events(runner)
            if time.monotonic() >= beat:
                await _beat(runner, settings)
                beat = time.monotonic() + min(settings.stale_seconds, settings.resume_seconds) / 3
            if time.monotonic() >= tidy:
                await runner.events.forget(EVENTS_SECONDS + settings.timeout)
                tidy = time.monotonic() + EVENTS_SECONDS / 5
        except SQLAlchemyError as error:
            # It heals by itself: the events are kept until they can be written.
            logger.warning("The database failed: %s", getattr(error, "orig", None) or error)
            await asyncio.sleep(1)
        except Exception:
            logger.exception("The heartbeat of runs failed")
            await asyncio.sleep(1)
        await asyncio.sleep(TICK_SECONDS)


async def _write_events(runner: Runner) -> None:
    logs = list(runner.logs.items())
    await runner.events.write(logs)
    for run_id, log in logs:
        if log.closed and log.written == len(log.events) and not log.watchers:
            del runner.logs[run_id]


async def _beat(runner: Runner, settings: AgentSettings) -> None:
    """Keep our runs alive, stop those that somebody cancelled or nobody waits for, give up the silent."""
    ours = dict(runner.underway)
    alive = await runner.records.keep_alive(ours.keys()) if ours else {}
    for run_id, run in ours.items():
        if run_id not in alive:
            # Ended meanwhile, where this does nothing, or cancelled by another process.
            run.stop()
        elif run.attempt is None and (log := runner.logs.get(run_id)) and not log.watchers:
            watched_elsewhere = alive[run_id]
            alone = time.monotonic() - log.left_at
            if (
                min(alone, alone if watched_elsewhere is None else watched_elsewhere)
                >= settings.resume_seconds
            ):
                run.token.cancel()
    await runner.records.give_up(settings.stale_seconds)
