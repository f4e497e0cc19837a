"""The worker beside the requests: it carries runs in the background, tells of their ends, and keeps the schedules."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpcore2
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from procrastinate import App, BaseRetryStrategy, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import ModelMessage
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.background.jobs import PatientJobs, make_connector, make_pool
from chassis.background.schedules import Schedule
from chassis.background.settings import BackgroundSettings
from chassis.background.webhooks import Refused, Webhooks
from chassis.database.engine import Sessions
from chassis.errors import RunError
from chassis.keys.caller import Caller
from chassis.runs.attempts import Attempts, Work, count_queued, go_on, patiently, put, take_webhook
from chassis.runs.events import RunLog
from chassis.runs.metrics import count
from chassis.runs.records import RepeatedRun
from chassis.runs.runner import Runner
from chassis.runs.started import StartedRun
from chassis.runs.tables import Run, RunStatus
from chassis.runs.usage import usage_in
from chassis.runs.views import began, render, restarted, view_run

RUNS, WEBHOOKS = "agent-runs", "agent-webhooks"
# How often a worker looks for what it wasn't told of, such as a job that another one has handed back.
POLL_SECONDS = 2
# How long the runs underway have to end by themselves when the process is to stop.
GRACE_SECONDS = 5
# How many webhooks are sent at once.
SENDERS = 10
LONGEST_PAUSE = 3600
# After how long to come back when as many runs wait as may.
BUSY_SECONDS = 5
# Attempts at a run are fewer. This is for what goes wrong around them.
MOST_TIMES = 100

UNREACHABLE = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    OSError,
    TimeoutError,
)

logger = logging.getLogger(__name__)
meter = metrics.get_meter(__name__)


class Underway(Exception):  # noqa: N818 -- it is looked for again
    """A run hasn't ended yet."""


class AtOnce(BaseRetryStrategy):
    """A job that was cut off is done again at once, one that failed after a moment, at most so many times.

    One that waits for the end of a run is done again as long as that goes on.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Say when to do it again."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        if isinstance(exception, Underway) or job.attempts < MOST_TIMES:
            return RetryDecision(retry_in={"seconds": POLL_SECONDS})
        which = job.task_kwargs.get("run_id") or job.task_kwargs.get("name")
        logger.error("The %s %s is given up", job.task_name, which, exc_info=exception)
        return None


class BackOff(BaseRetryStrategy):
    """A job is done again after 2, 4, 8, ... seconds, an hour at most, until its time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Say when to do it again."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        pause = min(2 ** min(job.attempts + 1, 20), LONGEST_PAUSE)
        since = float(str(job.task_kwargs["since"]))
        if time.time() + pause <= since + self._seconds:
            return RetryDecision(retry_in={"seconds": pause})
        why = exception if isinstance(exception, NotTold) else type(exception).__name__
        logger.error("The end of run %s could not be told: %s", job.task_kwargs["run_id"], why)
        return None


class NotTold(Exception):  # noqa: N818 -- it is tried again
    """An address couldn't be told."""


def _has_no_arguments(record: logging.LogRecord) -> bool:
    """Leave out the engine's own word on a job that failed for good: it has the arguments, and we say it without."""
    return getattr(record, "action", None) != "job_error"


class Carrier:
    """Takes runs that outlive their requests, and carries some of those that there are."""

    def __init__(
        self,
        runner: Runner,
        sessions: Sessions,
        settings: BackgroundSettings,
        webhooks: Webhooks,
        schedules: Iterable[Schedule],
        url: URL,
        stale_seconds: float,
        check: Callable[[Caller], Awaitable[None]],
    ) -> None:
        """Take what it works with.

        After `stale_seconds` of silence a process counts as dead. `check` raises a `RunError` where a caller's run may
        not begin any more.
        """
        self._runner = runner
        self._settings = settings
        self._stale_seconds = stale_seconds
        self._check = check
        self._webhooks = webhooks
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._attempts = Attempts(sessions)
        self._waiting = 0
        self._pool, connector = make_pool(url), make_connector()
        # It tells of each job, with its arguments, and of an address to be told that way.
        logging.getLogger("procrastinate").setLevel(logging.WARNING)
        for name in ("", f".{RUNS}", f".{WEBHOOKS}"):
            logging.getLogger(f"procrastinate.worker{name}").addFilter(_has_no_arguments)
        self._app = App(connector=connector)
        self._app.job_manager = self._jobs = PatientJobs(connector)
        task, back_off = self._app.task, BackOff(settings.webhook_seconds)
        self._run = task(name="agent-run", queue=RUNS, retry=AtOnce())(self._carry)
        self._webhook = task(name="agent-webhook", queue=WEBHOOKS, retry=back_off)(self._tell)
        # Whoever carries it may die, so that nobody but a job is sure to see its end.
        self._end = task(name="agent-run-end", queue=WEBHOOKS, retry=AtOnce())(self._await_end)
        schedule = task(name="agent-schedule", queue=RUNS, retry=AtOnce())(self._keep)
        for name, declared in self._schedules.items():
            self._app.periodic(cron=declared.cron, periodic_id=name, task_kwargs={"name": name})(schedule)
        meter.create_observable_gauge(
            "agent.runs.queued",
            [self._observe],
            description="Runs in the background that wait, of all replicas.",
        )

    async def put(
        self,
        run: StartedRun,
        session: AsyncSession,
        /,
        *,
        model: str | None = None,
        replaces: str | None = None,
        webhook: str | None = None,
        waiting: Run | None = None,
        scheduled: bool = False,
    ) -> None:
        """Put a run into the queue, in the transaction that writes its row; one that is `scheduled` has no limits.

        One that goes on with what was decided on `waiting` is told of at the same address.

        Raises:
            RunError: if as many of the caller's wait as may.
        """
        most = self._settings.background_queued
        if not scheduled and await count_queued(session, run.owner) >= most:
            detail = f"As many of your runs wait as may ({most}). Try again when one of them has begun."
            raise RunError(
                HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=BUSY_SECONDS, code="rate_limit_exceeded"
            )
        if waiting:
            webhook = await take_webhook(session, waiting.id)
        await put(session, run.id, run.caller, run.content, model=model, replaces=replaces, webhook=webhook)
        await self._put(session, self._run, run_id=str(run.id), scheduled=scheduled)

    async def go_on(self, waiting: Run, run: StartedRun, session: AsyncSession, /) -> None:
        """Have the end of a run told where the one before it has named an address, as part of the same transaction."""
        if self._settings.webhook_secrets and await go_on(session, waiting.id, run.id):
            await self._put(session, self._end, run_id=str(run.id), owner=run.owner)

    async def cancelled(self, run_id: UUID) -> None:
        """Keep what a run has brought that was cancelled while it waited, and tell of its end."""
        if work := await self._attempts.take_cancelled(run_id):
            await self._drop(work)
            await self._attempts.finish(run_id, partial(self._put_webhook, run_id))

    async def check_webhook(self, address: str) -> None:
        """Raise a `RunError` unless the address may be told of a run's end."""
        await self._webhooks.check(address)

    @asynccontextmanager
    async def carrying(self) -> AsyncIterator[None]:
        """Carry runs in the background of the block; afterwards hand back those that don't end in a moment."""
        async with self._pool, self._app.open_async(self._pool):
            workers = [(RUNS, self._settings.background_runs)]
            if self._settings.webhook_secrets:
                workers.append((WEBHOOKS, SENDERS))
            tasks = [asyncio.create_task(self._work(*worker), name=worker[0]) for worker in workers]
            watch = asyncio.create_task(self._watch(), name="stalled jobs")
            try:
                yield
            finally:
                for task in (*tasks, watch):
                    task.cancel()
                await asyncio.wait((*tasks, watch), timeout=2 * GRACE_SECONDS)

    async def _work(self, queue: str, concurrency: int) -> None:
        stale = self._stale_seconds
        while True:
            try:
                await self._app.run_worker_async(
                    queues=[queue],
                    name=queue,
                    concurrency=concurrency,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=POLL_SECONDS,
                    update_heartbeat_interval=stale / 3,
                    stalled_worker_timeout=10 * stale,
                    shutdown_graceful_timeout=GRACE_SECONDS,
                    delete_jobs="always",
                )
            except ConnectorException as error:
                logger.warning("The database failed: %s", error.__cause__)
            except Exception:
                logger.exception("The worker of %s failed", queue)
            await asyncio.sleep(1)

    async def _watch(self) -> None:
        """Give to others what a process had that is silent, and take note of how many runs wait."""
        while True:
            await asyncio.sleep(self._stale_seconds / 3)
            try:
                if stalled := await self._jobs.hand_out_stalled(self._stale_seconds):
                    logger.warning("%s jobs of a process that is gone begin again", stalled)
                self._waiting = await self._jobs.count_waiting(RUNS)
            except ConnectorException as error:
                logger.warning("The database failed: %s", error.__cause__)

    def _observe(self, options: CallbackOptions) -> Sequence[Observation]:
        return [Observation(self._waiting)]

    async def _carry(self, run_id: str, scheduled: bool = False) -> None:
        """Make an attempt at a run, unless it has ended; where it has by then, tell whoever is to be told."""
        if work := await self._attempts.take(UUID(run_id)):
            if work.cancelled:
                await self._drop(work)
            elif work.failures < self._settings.background_attempts:
                await self._attempt(work, check=work.attempt == 1 and not scheduled)
            else:
                times = f"{work.failures} times" if work.failures > 1 else "once"
                detail = f"The process that carried the run ended before it {times}, so it isn't begun again."
                await self._fail(work, RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail, final=True))
        await self._attempts.finish(UUID(run_id), partial(self._put_webhook, UUID(run_id)))

    async def _await_end(self, run_id: str, owner: str) -> None:
        row = await patiently(lambda: self._runner.records.read(UUID(run_id), owner))
        if row and row.status is RunStatus.RUNNING:
            raise Underway
        await self._attempts.finish(UUID(run_id), partial(self._put_webhook, UUID(run_id)))

    async def _attempt(self, work: Work, *, check: bool) -> None:
        try:
            if check:
                await patiently(lambda: self._check(work.caller))
            run = await self._runner.take_up(work, partial(self._save, work))
        except RunError as failure:
            await self._fail(work, failure)
            return
        log = await self._open_log(work)
        try:
            log.append(*restarted(work.attempt) if log.before else began(run))
            async for item in self._runner.stream(run):
                if event := render(item):
                    log.append(*event)
        except RunError as failure:
            row = await patiently(lambda: self._runner.records.read(work.id, work.caller.owner))
            if row and row.attempts != work.attempt:
                return  # Another attempt tells of it.
            if row and row.status is RunStatus.RUNNING:
                raise  # It is for another attempt to end it.
            if event := render(failure):
                log.append(*event)
        except asyncio.CancelledError:
            with suppress(SQLAlchemyError):
                await asyncio.shield(self._attempts.hand_back(work.id))
            raise
        finally:
            log.close()

    async def _drop(self, work: Work) -> None:
        try:
            run = await self._runner.take_up(work, partial(self._save, work))
        except RunError as failure:
            await self._fail(work, failure)
        else:
            await self._runner.drop(run, keep=work.is_last)

    async def _save(self, work: Work, messages: Sequence[ModelMessage]) -> None:
        if await self._attempts.save(work.id, work.attempt, messages):
            return
        row = await patiently(lambda: self._runner.records.read(work.id, work.caller.owner))
        run = self._runner.underway.get(work.id)
        if run and row and row.status is RunStatus.CANCELLED:
            run.unfinished.wanted = True
        raise RunCancelled("The run was cancelled, or goes on elsewhere.")

    async def _fail(self, work: Work, failure: RunError) -> None:
        logger.warning("Run %s failed: %s", work.id, failure.detail)
        usage, end = usage_in(work.said), self._runner.records.end
        if work.decided and work.said:
            await patiently(lambda: self._runner.give_up(work))
        await patiently(
            lambda: end(work.id, work.caller, RunStatus.FAILED, failure.detail, usage, work.attempt)
        )
        status = RunStatus.CANCELLED if work.cancelled else RunStatus.FAILED
        count(work.agent_id, work.model_id, status, work.seconds, usage)

    async def _open_log(self, work: Work) -> RunLog:
        events, logs = self._runner.events, self._runner.logs
        if last := logs.get(work.id):
            await patiently(lambda: events.write([(work.id, last)]))
        log = RunLog(before=await patiently(lambda: events.count(work.id)))
        logs[work.id] = log
        return log

    async def _put_webhook(self, run_id: UUID, owner: str, session: AsyncSession, address: str) -> None:
        if self._settings.webhook_secrets:
            told = {"run_id": str(run_id), "owner": owner, "address": address, "since": time.time()}
            await self._put(session, self._webhook, **told)

    async def _put(self, session: AsyncSession, task: Any, **arguments: Any) -> None:
        """Put a job into its queue, in the session's transaction."""
        connection = (await (await session.connection()).get_raw_connection()).driver_connection
        try:
            await task.configure(connection=connection).defer_async(**arguments)
        except ConnectorException as error:
            raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, "The database can't be reached.") from error

    async def _tell(self, run_id: str, owner: str, address: str, since: float) -> None:
        """Tell an address that a run has ended."""
        row = await self._runner.records.read(UUID(run_id), owner)
        if row is None:
            return  # It was deleted meanwhile.
        view = view_run(row).model_dump(mode="json")
        ended = row.finished_at or datetime.now(UTC)
        # One that goes on by now has waited, which is how it ended.
        status = RunStatus.WAITING if row.status is RunStatus.CONTINUED else row.status
        payload = {"type": f"run.{status}", "timestamp": ended.isoformat(), "data": view}
        try:
            answer = await self._webhooks.send(address, f"msg_{run_id}", payload)
        except Refused as reason:
            logger.warning("Nobody is told of the end of run %s: %s", run_id, reason)
            return
        except UNREACHABLE as error:
            raise NotTold(f"The address couldn't be reached: {type(error).__name__}") from None
        if answer == HTTPStatus.GONE:
            logger.warning("Nobody is told of the end of run %s: the address answers with 410", run_id)
        elif not 200 <= answer < 300:
            raise NotTold(f"The address answers with {answer}")

    async def _keep(self, timestamp: int, name: str) -> None:
        """Ask what a schedule says, once for each of its times."""
        if (schedule := self._schedules.get(name)) is None:
            return  # An older version of the service had it.
        queue = partial(self.put, webhook=schedule.webhook, scheduled=True)
        key = f"schedule {name} {timestamp}"
        try:
            with suppress(RepeatedRun):
                await self._runner.start(
                    schedule.agent, schedule.caller, schedule.input, idempotency_key=key, queue=queue
                )
        except RunError as failure:
            logger.warning("The schedule %s was not kept: %s", name, failure.detail)
            raise
