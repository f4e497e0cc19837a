"""Running an agent, with a row in `runs` that says how it went.

No database connection is held while the model thinks: there is one statement before and one after.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
from opentelemetry import metrics
from pydantic_ai import Agent, AgentRunResult, AgentRunResultEvent, AgentStreamEvent, CancellationToken
from pydantic_ai.conversation import Conversation
from pydantic_ai.exceptions import RunCancelled, RunTimedOut
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.usage import RunUsage, UsageLimits
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import SQLAlchemyError

from agents.callers import Caller
from agents.deps import RUN_ID, Deps
from agents.events import EventStore, RunLog
from agents.failures import INTERRUPTED, RunError, explain
from agents.history import history_window
from agents.models import NoModelError
from agents.records import RunRecords, no_conversation
from agents.registry import AGENTS
from agents.settings import AgentSettings
from agents.store import DatabaseConversationStore, encodable
from db.session import Sessions
from db.tables import RunStatus

logger = logging.getLogger(__name__)
# Counts for nobody unless telemetry is on, see api/telemetry.py.
ended_runs = metrics.get_meter(__name__).create_counter("agent.runs", description="Runs that ended.")

Events = AsyncIterator[AgentStreamEvent | AgentRunResultEvent[Any]]
# Makes of an event its name and data for the caller, or None where callers have no use for it.
Render = Callable[["StartedRun | AgentStreamEvent | Answer | RunError"], tuple[str, str] | None]


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that has its row; nothing was sent to the model yet."""

    id: uuid.UUID
    agent_id: str
    agent: Agent[Deps, Any]
    model: Model
    owner: str
    prompt: str
    conversation: Conversation
    # Whether the conversation is kept here; else the caller sends it along each time.
    kept: bool
    token: CancellationToken
    deps: Deps

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation that it is kept in."""
        return self.conversation.conversation_id if self.kept else None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a run ended that ended well; `usage` is of this run alone."""

    run: StartedRun
    output: Any
    usage: RunUsage


class Runner:
    """Starts runs and sees them through to their end."""

    def __init__(
        self,
        sessions: Sessions,
        store: DatabaseConversationStore,
        model: Model | NoModelError,
        settings: AgentSettings,
    ) -> None:
        """Keep what runs need. Where no model is to be had, `model` is the reason, given to each run."""
        self._sessions = sessions
        self._store = store
        self._model = model
        self._settings = settings
        self._window = history_window(settings.history_messages, settings.history_chars)
        self.records = RunRecords(sessions)
        self.underway: dict[uuid.UUID, StartedRun] = {}
        self.logs: dict[uuid.UUID, RunLog] = {}
        self.events = EventStore(sessions)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self,
        agent_id: str,
        caller: Caller,
        prompt: str,
        *,
        conversation_id: str | None = None,
        create: bool = False,
        history: Sequence[ModelMessage] | None = None,
        idempotency_key: str | None = None,
    ) -> StartedRun:
        """Note the start of a run.

        Args:
            agent_id: which agent.
            caller: who asks; counts against the caller's limits.
            prompt: what is asked.
            conversation_id: the conversation that it continues; without one a new conversation starts.
            create: start the conversation with this id where there is none; its messages aren't loaded.
            history: what was said before, from a caller who keeps the conversation; nothing is stored of it.
            idempotency_key: the caller's name for the request, under which it runs once.

        Raises:
            RunError: if there is no such agent or conversation, somebody else writes to it, no model can
                answer, or the caller has reached a limit.
            RepeatedRun: if the key was used before.
        """
        registered = AGENTS.get(agent_id)
        if registered is None or not caller.may_run(agent_id):
            known = ", ".join(known for known in AGENTS if caller.may_run(known))
            raise RunError(HTTPStatus.NOT_FOUND, f"There is no agent {agent_id!r}. There are: {known}.")
        if isinstance(self._model, NoModelError):
            raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, str(self._model))
        kept = history is None
        conversation, is_new = Conversation(messages=list(history or ())), kept
        if conversation_id is not None:
            conversation, is_new = await self._find(conversation_id, caller.owner, create=create)
        run_id = uuid.uuid4()
        deps = Deps(self._sessions, run_id, conversation.conversation_id if kept else None, caller.owner)
        run = StartedRun(
            run_id,
            agent_id,
            registered.agent,
            self._model,
            caller.owner,
            prompt,
            conversation,
            kept,
            CancellationToken(),
            deps,
        )
        request = f"{agent_id}\0{conversation_id}\0{prompt}"
        await self.records.begin(
            caller,
            new_conversation=conversation if is_new else None,
            prompt=prompt,
            idempotency_key=idempotency_key,
            request_hash=hashlib.sha256(request.encode()).hexdigest() if idempotency_key else None,
            row={
                "id": run.id,
                "conversation_id": run.conversation_id,
                "agent_id": agent_id,
                "model": run.model.model_id,
                "owner": run.owner,
            },
        )
        self.underway[run.id] = run
        RUN_ID.set(run.id)
        return run

    def options(self, run: StartedRun) -> dict[str, Any]:
        """Return what the run methods of an agent, or of an adapter for a protocol, are to be given."""
        # A conversation carries the usage of all its runs, and limits are counted from its start.
        limit = run.conversation.usage.requests + self._settings.request_limit
        return {
            "model": run.model,
            "deps": run.deps,
            "timeout": self._settings.timeout,
            "usage_limits": UsageLimits(request_limit=limit),
            "cancellation_token": run.token,
            "capabilities": [self._window],
        }

    async def answer(self, run: StartedRun) -> Answer:
        """Run the agent and return its answer once all of it is stored.

        Raises:
            RunError: for whatever goes wrong. The conversation is then as it was before.
        """
        async with self._seeing_through(run):
            options = self.options(run)
            result = await run.agent.run(run.prompt, conversation=run.conversation, **options)
            return await self._succeed(run, result, save=run.kept)

    async def stream(self, run: StartedRun) -> AsyncGenerator[AgentStreamEvent | Answer]:
        """Run the agent and yield its events as they happen, and its answer once all of it is stored.

        Raises:
            RunError: as `answer`.
        """
        async with self._seeing_through(run):
            options = self.options(run)
            async with run.agent.run_stream_events(
                run.prompt, conversation=run.conversation, **options
            ) as events:
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        answer = await self._succeed(run, event.result, save=run.kept)
                    else:
                        yield event
        yield answer

    async def track(
        self, run: StartedRun, events: Events
    ) -> AsyncGenerator[AgentStreamEvent | AgentRunResultEvent[Any]]:
        """Pass on the events of a run that an adapter makes and stores, and write down how it ended.

        Raises:
            RunError: as `answer`.
        """
        async with self._seeing_through(run):
            async for event in events:
                if isinstance(event, AgentRunResultEvent):
                    await self._succeed(run, event.result, save=False)
                yield event

    def launch(self, run: StartedRun, render: Render) -> RunLog:
        """Stream the run into a log, which goes on for a while when nobody watches it."""
        log = self.logs[run.id] = RunLog()

        def tell(item: StartedRun | AgentStreamEvent | Answer | RunError) -> None:
            if event := render(item):
                log.append(*event)

        async def drive() -> None:
            tell(run)
            try:
                async for item in self.stream(run):
                    tell(item)
            except RunError as failure:
                tell(failure)
            except asyncio.CancelledError:
                tell(INTERRUPTED)
            finally:
                log.close()

        task = asyncio.create_task(drive(), name=f"run {run.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return log

    async def cancel(self, run_id: uuid.UUID, owner: str) -> bool:
        """Stop a run, of this process or another. Return whether the owner has such a run."""
        if (run := self.underway.get(run_id)) and run.owner == owner:
            run.token.cancel()
            return True
        return await self.records.cancel(run_id, owner)

    async def close(self) -> None:
        """Write the end of the runs still underway: the process stops before they can do it themselves."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for run in list(self.underway.values()):
            await self._end(run, RunStatus.INTERRUPTED, INTERRUPTED.detail)

    async def _find(self, conversation_id: str, owner: str, *, create: bool) -> tuple[Conversation, bool]:
        """Return the owner's conversation, and whether it is yet to be made."""
        if not create:
            limit = self._settings.history_messages
            found = await self._store.load(conversation_id, limit=limit, scope=owner)
            if found is None:
                raise no_conversation(conversation_id)
            return found, False
        record = await self._store.read_record(conversation_id)
        if record is None:
            return Conversation(conversation_id=conversation_id), True
        if record.scope != owner:
            raise no_conversation(conversation_id)
        return Conversation(conversation_id=conversation_id, usage=record.usage), False

    @asynccontextmanager
    async def _seeing_through(self, run: StartedRun) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            raise await self._fail(run, error) from error
        except BaseException:
            await self._end(run, RunStatus.INTERRUPTED, INTERRUPTED.detail)
            raise

    async def _succeed(self, run: StartedRun, result: AgentRunResult[Any], *, save: bool) -> Answer:
        answer = Answer(run, _plain(result.output), _usage_of(run, result))
        try:
            # Once the answer is there, it gets stored.
            with anyio.CancelScope(shield=True):
                await self.records.succeed(
                    run.id,
                    run.owner,
                    answer.output,
                    answer.usage,
                    result=result,
                    conversation=run.conversation if save else None,
                )
        except SQLAlchemyError:
            if save:
                raise
            # What the caller gets stands by now, and doesn't fail for want of this row.
            logger.exception("The end of run %s could not be written", run.id)
        self.underway.pop(run.id, None)
        return answer

    async def _fail(self, run: StartedRun, error: Exception) -> RunError:
        failure = explain(error)
        if isinstance(error, RunCancelled) and not isinstance(error, RunTimedOut):
            await self._end(run, RunStatus.CANCELLED, failure.detail)
            return failure
        if failure.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("Run %s failed", run.id, exc_info=error)
        else:
            logger.warning("Run %s failed: %s: %s", run.id, type(error).__name__, failure.detail)
        await self._end(run, RunStatus.FAILED, failure.detail)
        return failure

    async def _end(self, run: StartedRun, status: RunStatus, error: str) -> None:
        try:
            # A run that is being cancelled still gets its row written.
            with anyio.CancelScope(shield=True):
                await self.records.end(run.id, status, error)
        except SQLAlchemyError:
            logger.exception("The end of run %s could not be written", run.id)
        finally:
            self.underway.pop(run.id, None)
            ended_runs.add(1, {"agent": run.agent_id, "status": status})


def _plain(output: Any) -> Any:
    """Return the output as JSON can hold it."""
    return encodable(output) if isinstance(output, str) else to_jsonable_python(output)


def _usage_of(run: StartedRun, result: AgentRunResult[Any]) -> RunUsage:
    """The usage of this run, taken out of that of the whole conversation."""
    usage = RunUsage(tool_calls=result.usage.tool_calls - run.conversation.usage.tool_calls)
    for message in result.new_messages():
        if isinstance(message, ModelResponse):
            usage.incr(message.usage)
            usage.requests += 1
    return usage
