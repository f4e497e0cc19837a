"""The events of streamed runs, numbered from 1, so that a caller who lost the connection can go on.

A run's own process has them in memory. It also writes them to `run_events` several times a second, in
one statement for all runs, from where any other process can tell them.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.runs import tables

# How often another process looks for new events.
POLL_SECONDS = 0.25
# By when the last events of a run that has ended are written, see chassis/runs/heartbeat.py.
WRITTEN_SECONDS = 2
LAST = frozenset({"done", "waiting", "error"})


class Event(NamedTuple):
    """One event: its number in the run, its name, and its data as JSON."""

    number: int
    name: str
    data: str


@dataclass(eq=False, slots=True)
class RunLog:
    """The events of one run of this process, for any number of watchers."""

    events: list[tuple[str, str]] = field(default_factory=list)
    # How many there were already, told by an earlier attempt at a run in the background.
    before: int = 0
    closed: bool = False
    watchers: int = 0
    left_at: float = field(default_factory=time.monotonic)
    written: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, name: str, data: str) -> None:
        """Add an event and wake the watchers."""
        self.events.append((name, data))
        self._wake()

    def close(self) -> None:
        """Say that no event will follow."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, after: int) -> AsyncGenerator[Event]:
        """Yield the events with numbers above `after`, `before` at least, as they come, until the last."""
        self.watchers += 1
        try:
            while True:
                changed = self._changed
                for number, (name, data) in enumerate(self.events[after - self.before :], after + 1):
                    yield Event(number, name, data)
                    after = number
                if self.closed and after >= self.before + len(self.events):
                    return
                if changed is self._changed:
                    await changed.wait()
        finally:
            self.watchers -= 1
            self.left_at = time.monotonic()


class EventStore:
    """Events in the database."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def write(self, logs: Sequence[tuple[uuid.UUID, RunLog]]) -> None:
        """Write what is new in the logs."""
        new = [(run_id, log, len(log.events)) for run_id, log in logs if len(log.events) > log.written]
        if not new:
            return
        rows = [
            {
                "run_id": run_id,
                "last": log.before + last,
                "events": json.dumps(log.events[log.written : last]),
            }
            for run_id, log, last in new
        ]
        # A run that was deleted together with its conversation has no row to belong to any more.
        ids = [row["run_id"] for row in rows]
        async with self._sessions.begin() as session:
            query = select(tables.Run.id).where(tables.Run.id.in_(ids)).with_for_update(key_share=True)
            known = set(await session.scalars(query))
            if rows := [row for row in rows if row["run_id"] in known]:
                # A process that was cut off from a run in the background may tell what another one tells by now.
                await session.execute(insert(tables.RunEvents).on_conflict_do_nothing(), rows)
        for _, log, last in new:
            log.written = last

    async def watch(self, run_id: uuid.UUID, after: int) -> AsyncGenerator[Event]:
        """Yield the events of any process's run with numbers above `after`, until the last there is."""
        ended = False
        while True:
            for event in await self._read(run_id, after):
                after = event.number
                yield event
                if event.name in LAST:
                    return
            if ended:
                return
            # What was written before that is read once more after it.
            if not (ended := await self._has_ended(run_id)):
                await asyncio.sleep(POLL_SECONDS)

    async def count(self, run_id: uuid.UUID) -> int:
        """Return the number of the last event of a run."""
        query = select(func.max(tables.RunEvents.last)).where(tables.RunEvents.run_id == run_id)
        async with self._sessions() as session:
            return await session.scalar(query) or 0

    async def forget(self, seconds: float) -> None:
        """Delete the events older than this."""
        old = tables.RunEvents.created_at < func.now() - timedelta(seconds=seconds)
        async with self._sessions.begin() as session:
            await session.execute(delete(tables.RunEvents).where(old))

    async def _read(self, run_id: uuid.UUID, after: int) -> list[Event]:
        table = tables.RunEvents
        query = select(table.last, table.events).where(table.run_id == run_id, table.last > after)
        async with self._sessions() as session:
            rows = (await session.execute(query.order_by(table.last))).all()
        found = []
        for last, document in rows:
            events = json.loads(document)
            found += [Event(n, *event) for n, event in enumerate(events, last - len(events) + 1) if n > after]
        return found

    async def _has_ended(self, run_id: uuid.UUID) -> bool:
        """Tell whether the run and the writing of its events have ended, and its process that somebody watches."""
        table = tables.Run
        writing = table.finished_at > func.now() - timedelta(seconds=WRITTEN_SECONDS)
        goes_on = (table.id == run_id, or_(table.status == tables.RunStatus.RUNNING, writing))
        async with self._sessions.begin() as session:
            watched = update(table).where(*goes_on).values(watched_at=func.now()).returning(table.id)
            return await session.scalar(watched) is None
