"""Running an agent, with a row in `runs` that says how it went.

No database connection is held while the model thinks: there is one statement before and one after.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

import anyio
from pydantic_ai import (
    AgentRunResult,
    AgentRunResultEvent,
    AgentStreamEvent,
    CancellationToken,
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    capture_run_messages,
)
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.exceptions import RunCancelled, RunTimedOut
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    PartStartEvent,
    UserContent,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.agents.choice import Models, who_answered
from chassis.agents.deps import Deps
from chassis.agents.registry import Agents, RegisteredAgent
from chassis.agents.settings import AgentSettings
from chassis.context import RUN_ID
from chassis.conversations.contents import attachments, words
from chassis.conversations.store import DatabaseConversationStore
from chassis.database.engine import Sessions
from chassis.database.jsonb import encodable
from chassis.errors import RunError
from chassis.files.references import items
from chassis.keys.caller import Caller
from chassis.runs import metrics
from chassis.runs.approval import Decided, calls_of, decide, not_kept, waits_for_client
from chassis.runs.attempts import Work
from chassis.runs.checkpoints import Checkpoints
from chassis.runs.clock import Clock
from chassis.runs.continuation import Continuation
from chassis.runs.errors import INTERRUPTED, explain, timed_out, too_busy
from chassis.runs.events import EventStore, RunLog
from chassis.runs.load import refused_runs, underway_runs
from chassis.runs.records import RunRecords, title_of
from chassis.runs.started import Answer, StartedRun
from chassis.runs.tables import Run, RunStatus
from chassis.runs.usage import Meter, usage_in, usage_of

logger = logging.getLogger(__name__)

Events = AsyncIterator[AgentStreamEvent | AgentRunResultEvent[Any]]
# Makes of an event its name and data for the caller, or None where callers have no use for it.
Render = Callable[["StartedRun | AgentStreamEvent | Answer | RunError"], tuple[str, str] | None]


class Queue(Protocol):
    """Carries runs that outlive their requests, see chassis/background."""

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
    ) -> None:
        """Put a run into it, in the transaction that writes its row; or one that goes on with what was decided."""

    async def go_on(self, waiting: Run, run: StartedRun, session: AsyncSession, /) -> None:
        """Have the end of a run told where the one before it has named an address, as part of the same transaction."""

    async def cancelled(self, run_id: uuid.UUID) -> None:
        """Keep what a run has brought that was cancelled while it waited."""

    async def check_webhook(self, address: str) -> None:
        """Raise a `RunError` unless the address may be told of a run's end."""


class Runner:
    """Starts runs and sees them through to their end."""

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        store: DatabaseConversationStore,
        models: Models,
        settings: AgentSettings,
        resources: Mapping[str, Any],
    ) -> None:
        self._agents = agents
        self._resources = resources
        self._sessions = sessions
        self._store = store
        self._models = models
        self._settings = settings
        self.at_most = settings.concurrent_runs
        self.records = RunRecords(sessions)
        self._continuation = Continuation(store, self.records, settings.history_messages)
        self.underway: dict[uuid.UUID, StartedRun] = {}
        self.logs: dict[uuid.UUID, RunLog] = {}
        self.events = EventStore(sessions)
        self.clock = Clock()
        self.queue: Queue | None = None
        # Refuses files that are to be kept for an owner who has too many.
        self.check_room: Callable[[str, Sequence[UserContent]], Awaitable[None]] | None = None
        self._starting = 0
        self._in_background = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self,
        agent_id: str,
        caller: Caller,
        content: str | Sequence[UserContent],
        *,
        conversation_id: str | None = None,
        create: bool = False,
        replaces: str | None = None,
        after: uuid.UUID | None = None,
        earlier: Sequence[ModelMessage] = (),
        keep: bool = True,
        idempotency_key: str | None = None,
        request: str | None = None,
        model: str | None = None,
        decided: Decided | None = None,
        queue: Callable[[StartedRun, AsyncSession], Awaitable[None]] | None = None,
    ) -> StartedRun:
        """Note the start of a run.

        Args:
            agent_id: which agent.
            caller: who asks; counts against the caller's limits.
            content: what is asked, and shown with it.
            conversation_id: the conversation that it continues; without one a new conversation starts.
            create: start the conversation with this id where there is none; its messages aren't loaded.
            replaces: a message of the user's in the conversation. The prompt takes its place, and what came
                after it is left out from then on, though nothing is deleted.
            after: a run of the conversation, to go on from its end. What came after it is left out from then on,
                as with `replaces`.
            earlier: what was said since then, or before all, as the caller tells it.
            keep: whether any of it is stored; else the caller keeps the conversation.
            idempotency_key: the caller's name for the request, under which it runs once.
            request: all of the request, where more than the prompt and the above makes it another one.
            model: the model that the request wants, one of those on offer.
            decided: a person's word, with which to go on in place of a prompt.
            queue: puts it where it is begun from later, in the background; here it is only written down.

        Raises:
            RunError: if there is no such agent or conversation, somebody else writes to it, no model can
                answer, the caller has reached a limit, or as many runs are underway as the process carries.
            RepeatedRun: if the key was used before.
        """
        registered = self.find_agent(agent_id, caller)
        chosen = self._models.choose(registered.agent, model)
        with nullcontext() if queue else self._room(agent_id):
            prompt = words(content)
            if request is None:
                shown = [file.id for file in attachments(content) if file.id]
                more = [*([replaces] if replaces else []), *shown]
                request = "\0".join([agent_id, str(conversation_id), prompt, *more])
            if model:
                request = f"{request}\0{model}"
            request_hash = hashlib.sha256(request.encode()).hexdigest() if idempotency_key else None
            conversation, is_new = Conversation(), True
            branch = None
            if conversation_id is not None:
                for other in list(self.underway.values()):
                    if (other.conversation_id, other.owner) == (conversation_id, caller.owner):
                        await other.stopped()
            if conversation_id is not None and replaces is not None:
                try:
                    found = await self._continuation.find_before(conversation_id, replaces, caller.owner)
                except RunError:
                    # Where it is a repeated request, the message was replaced by the first.
                    if idempotency_key:
                        await self.records.refuse_repeated(caller.owner, idempotency_key, request_hash)
                    raise
                conversation, branch, is_new = *found, False
            elif conversation_id is not None and after is not None:
                conversation, branch = await self._continuation.find_after(
                    conversation_id, after, caller.owner
                )
                is_new = False
            elif conversation_id is not None:
                conversation, is_new = await self._continuation.find(
                    conversation_id, caller.owner, create=create
                )
            # A tool call that was never answered, as when a tab was closed over the question, must not end all.
            earlier = repair_messages(earlier)
            if decided and (open_calls := conversation.deferred_tool_requests) and open_calls.calls:
                raise waits_for_client(open_calls)
            if not decided:
                left_open = await self._continuation.left_open(conversation, caller.owner)
                earlier = [*left_open, *earlier]
                known = repair_messages([*conversation.messages, *left_open])
                conversation.messages = [*known, *earlier[len(left_open) :]]
            if not keep:
                conversation, branch = Conversation(messages=conversation.messages), None
            run_id = uuid.uuid4()
            deps = Deps(
                self._sessions,
                run_id,
                conversation.conversation_id if keep else None,
                caller.owner,
                self._resources,
            )
            run = StartedRun(
                id=run_id,
                agent_id=agent_id,
                agent=registered.agent,
                model=chosen,
                caller=caller,
                content=content,
                conversation=conversation,
                kept=keep,
                token=CancellationToken(),
                deps=deps,
                # A conversation carries the usage of all its runs, and limits are counted from its start.
                meter=Meter(request_limit=conversation.usage.requests + self._settings.request_limit),
                began=self.clock.now(),
                branch=branch,
                earlier=earlier,
                decided=decided,
            )
            also: Callable[[AsyncSession], Awaitable[None]] | None = None
            if queue:
                also = partial(queue, run)
            elif decided and self.queue:
                also = partial(self.queue.go_on, decided.waiting, run)
            await self.records.begin(
                caller,
                new_conversation=conversation if is_new and keep else None,
                prompt=prompt,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                decided=decided,
                row={
                    "id": run.id,
                    "conversation_id": run.conversation_id,
                    "agent_id": agent_id,
                    "model": run.model_id,
                    "owner": run.owner,
                    "attempts": 0 if queue else None,
                },
                also=also,
            )
            return run if queue else self._enter(run)

    async def take_up(
        self, work: Work, save: Callable[[Sequence[ModelMessage]], Awaitable[None]]
    ) -> StartedRun:
        """Begin an attempt at a run in the background, from where the ones before have come to.

        Args:
            work: which run, and what is kept of it.
            save: keeps what was said, each time before the run goes on.

        Raises:
            RunError: if its agent, its model or its conversation isn't there any more.
        """
        registered, owner = self._agents.get(work.agent_id), work.caller.owner
        if registered is None:
            raise RunError(HTTPStatus.NOT_FOUND, f"There is no agent {work.agent_id!r} any more.")
        model = self._models.choose(registered.agent, work.model)
        branch = None
        if work.replaces is not None:
            conversation, branch = await self._continuation.find_before(
                work.conversation_id, work.replaces, owner
            )
        else:
            conversation, _ = await self._continuation.find(work.conversation_id, owner, create=False)
        limit = conversation.usage.requests + self._settings.request_limit
        if not (work.content or work.decided or work.said or work.cancelled):
            raise RunError(HTTPStatus.NOT_FOUND, "What was decided isn't there any more.", final=True)
        # Under another run's name these messages would be taken for this attempt's.
        said = [replace(message, run_id=None) for message in work.said]
        if not work.cancelled and has_brought(conversation.messages, work.id):
            # The attempt before could write that, but not how the run ended.
            raise RunError(HTTPStatus.INTERNAL_SERVER_ERROR, "The run failed: its process ended.", final=True)
        left_open: list[ModelMessage] = []
        if not work.decided:
            left_open = await self._continuation.left_open(conversation, owner)
            conversation.messages = repair_messages([*conversation.messages, *left_open])
        conversation.messages = [*conversation.messages, *said]
        conversation.usage = conversation.usage + usage_in(work.said)
        meter = Meter(request_limit=limit)
        meter.starts_at(conversation.usage)
        return self._enter(
            StartedRun(
                id=work.id,
                agent_id=work.agent_id,
                agent=registered.agent,
                model=model,
                caller=work.caller,
                content=work.content,
                conversation=conversation,
                kept=True,
                token=CancellationToken(),
                deps=Deps(
                    self._sessions, work.id, work.conversation_id, owner, self._resources, in_background=True
                ),
                meter=meter,
                began=self.clock.now(),
                branch=branch,
                earlier=[*left_open, *work.said],
                decided=work.decided,
                attempt=work.attempt,
                resumed=work.said,
                save=save,
            )
        )

    @contextmanager
    def _room(self, agent_id: str) -> Iterator[None]:
        """Keep a place for a run that starts, or refuse it before anything is spent on it."""
        if len(self.underway) - self._in_background + self._starting >= self.at_most:
            refused_runs.add(1, {"agent": agent_id})
            raise too_busy()
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1

    def find_agent(self, agent_id: str, caller: Caller) -> RegisteredAgent:
        """Return the agent.

        Raises:
            RunError: if there is none that the caller may run.
        """
        registered = self._agents.get(agent_id)
        if registered is None or not caller.may_run(agent_id):
            known = ", ".join(known for known in self._agents if caller.may_run(known))
            detail = f"There is no agent {agent_id!r}. There are: {known}."
            raise RunError(HTTPStatus.NOT_FOUND, detail, code="model_not_found")
        return registered

    async def decide(self, waiting: Run, results: DeferredToolResults, caller: Caller) -> Decided:
        """Check a person's word against what a run waits for; `start` goes on with it.

        Raises:
            RunError: if it doesn't fit, or there is no such agent any more.
        """
        agent = self.find_agent(waiting.agent_id, caller).agent
        deps = Deps(self._sessions, waiting.id, waiting.conversation_id, caller.owner, self._resources)
        context = RunContext(deps=deps, model=self._models.choose(agent, None), usage=RunUsage(), agent=agent)
        return await decide(waiting, results, agent, context)

    def options(self, run: StartedRun) -> dict[str, Any]:
        """Return what the run methods of an agent, or of an adapter for a protocol, are to be given."""
        checkpoints = {"capabilities": [Checkpoints(str(run.id), run.resumed, run.save)]} if run.save else {}
        return checkpoints | {
            "output_type": self._agents[run.agent_id].output_type,
            # Once they are carried out, what they returned is a part of what was said.
            "deferred_tool_results": run.decided.results if run.decided and not run.resumed else None,
            # By which a run's messages are found again in its conversation.
            "run_id": str(run.id),
            "model": run.model,
            "deps": run.deps,
            "usage_limits": run.meter,
            "cancellation_token": run.token,
        }

    async def answer(self, run: StartedRun) -> Answer:
        """Run the agent and return its answer once all of it is stored.

        Raises:
            RunError: for whatever goes wrong. The conversation is then as it was before, unless the run was
                stopped on purpose.
        """
        async with self._seeing_through(run):
            options = self.options(run)
            result = await run.agent.run(run.content or None, conversation=run.conversation, **options)
            return await self._succeed(run, result, save=run.kept)

    async def stream(self, run: StartedRun) -> AsyncGenerator[AgentStreamEvent | Answer]:
        """Run the agent and yield its events as they happen, and its answer once all of it is stored.

        Raises:
            RunError: as `answer`.
        """
        async with self._seeing_through(run):
            options = self.options(run)
            async with run.agent.run_stream_events(
                run.question, conversation=run.conversation, **options
            ) as events:
                silent = True
                async for event in events:
                    if silent and isinstance(event, PartStartEvent):
                        silent = self._note_first_words(run)
                    if isinstance(event, AgentRunResultEvent):
                        answer = await self._succeed(run, event.result, save=run.kept)
                    else:
                        yield event
        yield answer

    async def track(
        self, run: StartedRun, events: Events, *, save: bool = False, may_wait: bool = True
    ) -> AsyncGenerator[AgentStreamEvent | AgentRunResultEvent[Any]]:
        """Pass on the events of a run that an adapter makes, and write down how it ended.

        Without `save` the adapter stores the messages itself, if they are kept. Where a run needs a person's
        approval its conversation is kept in any case, or without `may_wait` the run fails.

        Raises:
            RunError: as `answer`.
        """
        async with self._seeing_through(run):
            silent = True
            async for event in events:
                if silent and isinstance(event, PartStartEvent):
                    silent = self._note_first_words(run)
                if isinstance(event, AgentRunResultEvent):
                    if isinstance(event.result.output, DeferredToolRequests) and not may_wait:
                        raise not_kept(event.result.output)
                    await self._succeed(run, event.result, save=save)
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
            run.stop()
            await run.stopped()
            return True
        if not await self.records.cancel(run_id, owner):
            return False
        if self.queue:
            await self.queue.cancelled(run_id)
        return True

    async def drop(self, run: StartedRun, *, keep: bool) -> None:
        """End a run that was cancelled while nobody was at it; with `keep` its conversation has what it brought."""
        try:
            # By somebody whose process then died.
            record = await self._store.read_record(run.conversation.conversation_id)
            kept = bool(record and await self._store.find_end(record, str(run.id)))
        except KeyError:
            kept = False
        if keep and not kept:
            await self._keep(run, ())
        await self._end(run, RunStatus.CANCELLED, explain(RunCancelled("")).detail)

    async def give_up(self, work: Work) -> None:
        """Keep what a run has brought that goes on with a person's word, and of which there is no further attempt."""
        with suppress(RunError, ConversationConflict):
            owner = work.caller.owner
            conversation, _ = await self._continuation.find(work.conversation_id, owner, create=False)
            if not has_brought(conversation.messages, work.id):
                await self._store.append(conversation, owner, work.said, usage_in(work.said), None)

    def time_out(self) -> None:
        """Stop the runs that take longer than they may."""
        latest = self.clock.now() - self._settings.timeout
        for run in self.underway.values():
            if run.began < latest and not run.token.cancelled:
                run.unfinished.timed_out = True
                run.token.cancel()

    async def close(self) -> None:
        """Write the end of the runs still underway: the process stops before they can do it themselves."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for run in list(self.underway.values()):
            await self._end(run, RunStatus.INTERRUPTED, INTERRUPTED.detail)

    @asynccontextmanager
    async def _seeing_through(self, run: StartedRun) -> AsyncIterator[None]:
        try:
            with _noting(run):
                yield
        except Exception as error:
            raise await self._fail(run, error) from error
        except BaseException:
            if run.decided and run.attempt is None:
                await self._keep(run, run.brought())
            await self._end(run, RunStatus.INTERRUPTED, INTERRUPTED.detail)
            raise

    async def _succeed(self, run: StartedRun, result: AgentRunResult[Any], *, save: bool) -> Answer:
        calls = calls_of(result.output) if isinstance(result.output, DeferredToolRequests) else []
        answer = Answer(
            run,
            None if calls else _plain(result.output),
            usage_of(result, run.before, run.resumed),
            who_answered(run.model, result.new_messages()),
            calls,
        )
        try:
            # Once the answer is there, it gets stored.
            with anyio.CancelScope(shield=True):
                if calls and not run.kept:
                    await self._keep_after_all(run, result)
                await self.records.succeed(
                    run.id,
                    run.caller,
                    answer.output if run.kept else None,
                    answer.usage,
                    model=answer.model_id,
                    result=result,
                    conversation=run.conversation if save else None,
                    branch=run.branch,
                    earlier=run.earlier,
                    calls=calls,
                    attempt=run.attempt,
                )
        except SQLAlchemyError:
            if save or calls:
                raise
            # What the caller gets stands by now, and doesn't fail for want of this row.
            logger.exception("The end of run %s could not be written", run.id)
        status = RunStatus.WAITING if calls else RunStatus.SUCCEEDED
        self._forget(run, status, answer.usage, answer.model_id)
        return answer

    async def _keep_after_all(self, run: StartedRun, result: AgentRunResult[Any]) -> None:
        """Store the conversation of a run that was to leave nothing: there is no other way to go on with it."""
        conversation = replace(result.conversation, revision=None, new_message_index=None)
        if self.check_room:
            await self.check_room(run.owner, list(items(conversation.messages)))
        await self._store.save(conversation, scope=run.owner)
        title = title_of(run.prompt)
        if title:
            await self._store.rename(conversation.conversation_id, run.owner, title)
        await self.records.adopt(run.id, conversation.conversation_id)

    async def _fail(self, run: StartedRun, error: Exception) -> RunError:
        late = run.unfinished.timed_out
        failure = timed_out() if late else explain(error)
        if run.attempt is not None and isinstance(error, SQLAlchemyError) and not late:
            # Another attempt finds the database in a better state.
            logger.warning("Attempt %s at run %s ended: %s", run.attempt, run.id, failure.detail)
            await self._end(run, RunStatus.INTERRUPTED, failure.detail)
            return failure
        if isinstance(error, RunCancelled) and not (late or isinstance(error, RunTimedOut)):
            if run.kept and run.unfinished.wanted:
                await self._keep(run, error.new_messages())
            await self._end(run, RunStatus.CANCELLED, failure.detail)
            return failure
        if failure.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("Run %s failed", run.id, exc_info=error)
        else:
            logger.warning("Run %s failed: %s: %s", run.id, type(error).__name__, failure.detail)
        if run.decided:
            # What was approved is done by now, perhaps, and must not be asked for once more.
            await self._keep(run, run.brought())
        await self._end(run, RunStatus.FAILED, failure.detail)
        return failure

    async def _is_replaced(self, run: StartedRun) -> bool:
        """Tell whether another attempt at a run in the background was begun since."""
        if run.attempt is None:
            return False
        row = await self.records.read(run.id, run.owner)
        return row is None or row.attempts != run.attempt

    async def _keep(self, run: StartedRun, messages: Sequence[ModelMessage]) -> None:
        """Store what a run that was stopped has brought, before another run of the conversation may start."""
        usage = run.meter.used_since(run.before)
        try:
            # Whoever stopped it may be gone.
            with anyio.CancelScope(shield=True):
                if await self._is_replaced(run):
                    return
                if run.unfinished.said:
                    messages = [*await run.unfinished.said(), *messages]
                elif not (messages or run.decided or run.resumed):
                    # It was stopped before the library took note of it.
                    messages = [ModelRequest([UserPromptPart(run.content)], run_id=str(run.id))]
                messages = [*run.earlier, *messages]
                await self._store.append(run.conversation, run.owner, messages, usage, run.branch)
        except ConversationConflict:
            pass  # It was deleted or changed meanwhile.
        except SQLAlchemyError:
            logger.exception("What run %s has brought could not be stored", run.id)

    async def _end(self, run: StartedRun, status: RunStatus, error: str) -> None:
        usage = run.meter.used_since(run.before)
        if run.attempt is not None and status is RunStatus.INTERRUPTED:
            self._leave(run)  # Another attempt ends it.
            return
        try:
            # A run that is being cancelled still gets its row written.
            with anyio.CancelScope(shield=True):
                await self.records.end(run.id, run.caller, status, error, usage, run.attempt)
        except SQLAlchemyError:
            logger.exception("The end of run %s could not be written", run.id)
        finally:
            self._forget(run, status, usage)

    def _note_first_words(self, run: StartedRun) -> bool:
        """Write down how long it took, and return whether it is still to be noted."""
        labels = {"agent": run.agent_id, "model": run.model_id}
        metrics.first_words.record(self.clock.now() - run.began, labels)
        return False

    def _forget(
        self, run: StartedRun, status: RunStatus, usage: RunUsage, model_id: str | None = None
    ) -> None:
        self._leave(run)
        metrics.count(run.agent_id, model_id or run.model_id, status, self.clock.now() - run.began, usage)

    def _enter(self, run: StartedRun) -> StartedRun:
        self.underway[run.id] = run
        self._in_background += run.attempt is not None
        underway_runs.add(1, {"agent": run.agent_id})
        RUN_ID.set(run.id)
        return run

    def _leave(self, run: StartedRun) -> None:
        if self.underway.pop(run.id, None):
            underway_runs.add(-1, {"agent": run.agent_id})
            self._in_background -= run.attempt is not None
        run.ended.set()


def has_brought(messages: Sequence[ModelMessage], run_id: uuid.UUID) -> bool:
    """Tell whether messages of a run are among them."""
    return any(message.run_id == str(run_id) for message in messages)


@contextmanager
def _noting(run: StartedRun) -> Iterator[None]:
    """Take note of the messages of a run whose tools were approved, which are kept however it ends."""
    if not run.decided:
        yield
        return
    # In the background it is only known later whether this attempt is the one that counts.
    run.unfinished.wanted = run.attempt is None
    noting = capture_run_messages()
    run.unfinished.noted = noting.__enter__()
    try:
        yield
    finally:
        with suppress(ValueError):  # another task may be the one that tidies up
            noting.__exit__(None, None, None)


def _plain(output: Any) -> Any:
    """Return the output as JSON can hold it."""
    return encodable(output) if isinstance(output, str) else to_jsonable_python(output)
