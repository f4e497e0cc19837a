"""procrastinate's jobs, such that an outage of the database ends no worker, and no worker ends another one's job."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, NotificationCallback
from procrastinate.psycopg_connector import PsycopgConnector
from psycopg import AsyncConnection, OperationalError
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import URL

PAUSE_SECONDS = 1
# A pool that finds no server waits longer each time; one that has given up begins anew when it is asked again.
GIVE_UP_SECONDS = 4
CONNECTIONS = 3

# In one statement each, so that two processes can't do the same. The engine tells nobody of a job that is to be done again.
HAND_OUT_STALLED = """
    WITH stalled AS MATERIALIZED (
        SELECT id, queue_name FROM procrastinate_jobs AS job
        WHERE status = 'doing' AND NOT EXISTS (
            SELECT FROM procrastinate_workers AS worker
            WHERE worker.id = job.worker_id AND last_heartbeat >= now() - make_interval(secs => %(seconds)s)
        )
        FOR UPDATE SKIP LOCKED
    )
    SELECT id, procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL),
        pg_notify('procrastinate_queue_v1#' || queue_name, json_build_object('type', 'job_inserted', 'job_id', id)::text)
    FROM stalled
"""
HAND_OUT_LOST = """
    SELECT procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL) FROM procrastinate_jobs
    WHERE status = 'doing' AND worker_id = %(worker_id)s AND id <> ALL(%(running)s::bigint[])
"""
IS_OURS = """
    SELECT id FROM procrastinate_jobs WHERE id = %(id)s AND status = 'doing' AND worker_id = %(worker_id)s
"""
COUNT_WAITING = """
    SELECT count(*) AS number FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = %(queue)s
"""

logger = logging.getLogger(__name__)
T = TypeVar("T")


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)


def make_pool(url: URL) -> AsyncConnectionPool[Any]:
    """Make a pool of the engine's own on the service's database; it is to be opened, and needs no server for that."""
    # Not as a text: libpq reads some names and passwords otherwise than SQLAlchemy writes them.
    _, options = url.get_dialect()().create_connect_args(url)
    return AsyncConnectionPool(
        # As chassis/database/engine.py says of poolers.
        kwargs={**options, "prepare_threshold": None},
        configure=_configure,
        check=AsyncConnectionPool.check_connection,
        open=False,
        min_size=1,
        max_size=CONNECTIONS,
        timeout=GIVE_UP_SECONDS + 1,
        reconnect_timeout=GIVE_UP_SECONDS,
    )


def make_connector() -> PsycopgConnector:
    """Make what is to be opened with such a pool. Beside it there is one more connection, which hears of new jobs."""
    return PsycopgConnector(configure=_configure)


class PatientJobs(JobManager):
    """What workers ask of the database; what it can't be asked they ask again."""

    def __init__(self, connector: PsycopgConnector) -> None:
        super().__init__(connector)
        # Since when the database has answered.
        self.failed_at = float("-inf")
        self._running: defaultdict[int, set[int]] = defaultdict(set)

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Return a job that this worker is to do, if there is one."""
        running, is_lost = self._running[worker_id], False
        while True:
            try:
                if is_lost:  # It may have been given one, and not have heard of it.
                    given = {"worker_id": worker_id, "running": list(running)}
                    await self.connector.execute_query_all_async(HAND_OUT_LOST, **given)
                job = await super().fetch_job(queues, worker_id)
                break
            except ConnectorException as error:
                await self._pause(error)
                is_lost = True
        if job and job.id:
            running.add(job.id)
        return job

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Note the end of a job, unless it is another worker's by now."""
        if await self._let_go(job):
            await self._patiently(lambda: super(PatientJobs, self).finish_job(job, status, delete_job))

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Note that a job is to be done again, unless it is another worker's by now."""
        if await self._let_go(job):
            await self._patiently(
                lambda: super(PatientJobs, self).retry_job(job, retry_at, priority, queue, lock)
            )

    async def update_heartbeat(self, worker_id: int) -> None:
        """Say that a worker lives."""
        await self._patiently(lambda: super(PatientJobs, self).update_heartbeat(worker_id))

    async def defer_periodic_job(self, job: Job, periodic_id: str, defer_timestamp: int) -> int | None:
        """Put a job of a schedule into its queue, unless another process has."""
        put = super().defer_periodic_job
        return await self._patiently(lambda: put(job, periodic_id, defer_timestamp))

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Hear of new jobs."""
        listen = super().listen_for_jobs
        await self._patiently(lambda: listen(on_notification=on_notification, queues=queues))

    async def hand_out_stalled(self, seconds: float) -> int:
        """Give the jobs of workers that were silent for this long to others, and return how many there were.

        After an outage of the database nobody was heard of, so all get the same time again.
        """
        if time.monotonic() - self.failed_at < seconds:
            return 0
        return len(await self.connector.execute_query_all_async(HAND_OUT_STALLED, seconds=seconds))

    async def count_waiting(self, queue: str) -> int:
        """Return how many jobs of a queue nobody does yet."""
        return int((await self.connector.execute_query_one_async(COUNT_WAITING, queue=queue))["number"])

    async def _let_go(self, job: Job) -> bool:
        """Count a job as not running here any more, and return whether it was ours until now."""
        this = {"id": job.id, "worker_id": job.worker_id}
        ours = await self._patiently(lambda: self.connector.execute_query_all_async(IS_OURS, **this))
        if job.id and job.worker_id:
            self._running[job.worker_id].discard(job.id)
        return bool(ours)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except ConnectorException as error:
                await self._pause(error)

    async def _pause(self, error: ConnectorException) -> None:
        if not isinstance(error.__cause__, OperationalError):
            raise error
        self.failed_at = time.monotonic()
        await asyncio.sleep(PAUSE_SECONDS)
