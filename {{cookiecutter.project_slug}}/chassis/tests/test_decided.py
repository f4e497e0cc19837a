"""What a person has decided, carried in the background: attempts that die, fail and are made again, in one process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, ToolFailed, ToolReturn
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import URL, Engine, text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.agents.choice import Models
from chassis.agents.deps import Deps
from chassis.agents.registry import RegisteredAgent
from chassis.agents.settings import AgentSettings
from chassis.background.carrier import Carrier
from chassis.background.settings import BackgroundSettings
from chassis.background.webhooks import Webhooks
from chassis.conversations.store import DatabaseConversationStore
from chassis.database.engine import Sessions
from chassis.errors import RunError
from chassis.keys.caller import ANONYMOUS, Caller
from chassis.retention.housekeeping import tidy
from chassis.retention.settings import RetentionSettings
from chassis.runs.approval import Decision, results_of
from chassis.runs.attempts import Attempts, Work, put, take_webhook
from chassis.runs.once import once
from chassis.runs.runner import Runner
from chassis.runs.started import StartedRun
from chassis.runs.tables import Run
from chassis.settings import RuntimeEnv
from chassis.testing.service import unreachable, upgrade

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database(new_database: Callable[[], URL]) -> URL:
    """One of its own: runs stay underway in it."""
    url = new_database()
    upgrade(url)
    return url


PAY, LOOK, SLEEP = (ToolCallPart(name, {}, tool_call_id=name) for name in ("pay", "look", "sleep"))
FINE = ModelResponse([TextPart("fine")])
Results = list[tuple[str, str]]


class Bookkeeper:
    """An agent whose model first calls `calls`, and then does what `then` says, in a service of one process."""

    def __init__(self, sessions: Sessions, *calls: ToolCallPart) -> None:
        self.sessions = sessions
        self.calls = calls
        self.then: Callable[[], Awaitable[ModelResponse]] = self.hang
        self.reached = asyncio.Event()
        self.paid = 0
        # What the tool that asks for approval returns or raises.
        self.result: Any = "paid"
        self.told: Results = []
        agent = Agent(deps_type=Deps)
        agent.tool_plain(requires_approval=True)(self.pay)
        agent.tool_plain(requires_approval=True)(self.sleep)
        agent.tool_plain(self.look)
        self.attempts = Attempts(sessions)
        self.runner = service(sessions, agent, self.think)

    async def pay(self) -> Any:
        """Pay."""
        self.paid += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def look(self) -> str:
        """Look."""
        return "looked"

    async def sleep(self) -> None:
        """Go on for longer than anybody waits."""
        await self.hang()

    async def hang(self) -> ModelResponse:
        self.reached.set()
        await asyncio.sleep(100)
        return FINE

    async def fail(self) -> ModelResponse:
        raise ValueError("The model is out of order.")

    async def answer(self) -> ModelResponse:
        return FINE

    async def think(self, messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(list(self.calls))
        self.told = results(messages)
        return await self.then()

    async def decided(self) -> UUID:
        """Have a run wait, agree to all, and return the run that is to go on with that."""
        run = await self.runner.start("a", ANONYMOUS, "go")
        assert (await self.runner.answer(run)).calls
        waiting = await self.read(run.id)
        word = results_of(
            [
                Decision(id=call["id"], approve=True, arguments=None, reason=None)
                for call in waiting.calls or ()
            ]
        )
        decided = await self.runner.decide(waiting, word, ANONYMOUS)
        conversation = waiting.conversation_id
        going_on = await self.runner.start(
            "a", ANONYMOUS, "", conversation_id=conversation, decided=decided, queue=queue
        )
        return going_on.id

    async def read(self, run_id: UUID) -> Run:
        run = await self.runner.records.read(run_id, ANONYMOUS.owner)
        assert run
        return run

    async def attempt(self, run_id: UUID) -> StartedRun:
        work = await self.attempts.take(run_id)
        assert work
        return await self.runner.take_up(work, saving(self.attempts, work))

    async def attempt_and_die(self, run_id: UUID) -> None:
        """Begin, and end like a process that is killed, once the model or a tool doesn't come back."""
        self.reached.clear()
        task = asyncio.create_task(self.runner.answer(await self.attempt(run_id)))
        await asyncio.wait_for(self.reached.wait(), 20)
        task.cancel()
        await asyncio.wait([task])

    async def results(self, run_id: UUID) -> Results:
        """What the conversation has of tools."""
        conversation = (await self.read(run_id)).conversation_id
        store = DatabaseConversationStore(self.sessions)
        found = await store.load(str(conversation), scope=ANONYMOUS.owner)
        assert found
        return results(found.messages)


def results(messages: Sequence[ModelMessage]) -> Results:
    return [
        (part.tool_call_id, str(part.content))
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart | RetryPromptPart)
    ]


def service(sessions: Sessions, agent: Agent[Deps, Any], think: Any) -> Runner:
    settings = AgentSettings.from_env({})
    models = Models("openai:x", settings, RuntimeEnv.DEV, {}, instead=FunctionModel(think))
    agents = {"a": RegisteredAgent("a", "a", "", agent)}
    return Runner(agents, sessions, DatabaseConversationStore(sessions), models, settings, {})


async def queue(run: StartedRun, session: AsyncSession) -> None:
    await put(session, run.id, run.caller, run.content, model=None, replaces=None, webhook=None)


def saving(attempts: Attempts, work: Work) -> Callable[[Sequence[ModelMessage]], Awaitable[None]]:
    async def save(messages: Sequence[ModelMessage]) -> None:
        if not await attempts.save(work.id, work.attempt, messages):
            raise RunCancelled("It goes on elsewhere.")

    return save


@pytest.mark.parametrize("calls", [(PAY,), (PAY, LOOK)], ids=["alone", "beside one that needs no approval"])
@pytest.mark.parametrize("ends", ["fails", "is out of time", "is stopped", "succeeds"])
async def test_each_result_is_kept_once(
    sessions: Sessions, calls: tuple[ToolCallPart, ...], ends: str
) -> None:
    books = Bookkeeper(sessions, *calls)
    run_id = await books.decided()
    await books.attempt_and_die(run_id)
    books.then = {"fails": books.fail, "succeeds": books.answer}.get(ends, books.hang)
    books.reached.clear()
    run = await books.attempt(run_id)
    task = asyncio.create_task(books.runner.answer(run))
    if books.then == books.hang:
        await asyncio.wait_for(books.reached.wait(), 20)
        run.unfinished.timed_out = ends == "is out of time"
        run.token.cancel() if run.unfinished.timed_out else run.stop()
    with suppress(RunError):
        await task
    expected = {
        "fails": "failed",
        "is out of time": "failed",
        "is stopped": "cancelled",
        "succeeds": "succeeded",
    }
    assert (await books.read(run_id)).status == expected[ends]
    assert sorted(await books.results(run_id)) == sorted([("pay", "paid"), ("look", "looked")][: len(calls)])
    assert books.paid == 1


async def test_outage_in_the_moment_of_a_failure_leaves_nothing_behind(
    sessions: Sessions, postgres: Engine, database: URL
) -> None:
    books = Bookkeeper(sessions, PAY)
    run_id = await books.decided()

    with ExitStack() as outage:

        async def fail_in_an_outage() -> ModelResponse:
            outage.enter_context(unreachable(postgres, database))
            return await books.fail()

        books.then = fail_in_an_outage
        with pytest.raises(RunError):
            await books.runner.answer(await books.attempt(run_id))
    assert not books.runner.underway
    assert (await books.read(run_id)).status == "running"
    books.then = books.answer
    assert (await books.runner.answer(await books.attempt(run_id))).output == "fine"
    assert await books.results(run_id) == [("pay", "paid")]
    assert not books.runner.underway


async def test_process_that_dies_before_it_has_told_the_end(sessions: Sessions) -> None:
    """What the run has brought is kept by then."""
    books = Bookkeeper(sessions, PAY)
    run_id = await books.decided()
    books.then = books.fail
    with pytest.raises(RunError):
        await books.runner.answer(await books.attempt(run_id))
    async with sessions.begin() as session:
        undo = text("UPDATE runs SET status = 'running', finished_at = NULL, error = NULL WHERE id = :id")
        await session.execute(undo, {"id": run_id})
    await carrier(books).carry(run_id)
    run = await books.read(run_id)
    assert (run.status, run.error) == ("failed", "The run failed: its process ended.")
    assert await books.results(run_id) == [("pay", "paid")]


async def test_run_that_is_given_up_keeps_what_was_done(sessions: Sessions) -> None:
    books = Bookkeeper(sessions, PAY)
    run_id = await books.decided()
    await books.attempt_and_die(run_id)
    await carrier(books, AGENT_BACKGROUND_ATTEMPTS="1").carry(run_id)
    run = await books.read(run_id)
    assert run.status == "failed"
    assert "isn't begun again" in str(run.error)
    assert await books.results(run_id) == [("pay", "paid")]


@pytest.mark.parametrize("has_begun", [False, True])
async def test_decision_is_kept_as_long_as_a_run_goes_on_with_it(sessions: Sessions, has_begun: bool) -> None:
    books = Bookkeeper(sessions, PAY)
    run_id = await books.decided()
    if has_begun:
        await books.attempt_and_die(run_id)
    old = text("UPDATE runs SET finished_at = now() - interval '40 days' WHERE continued_by = :id")
    async with sessions.begin() as session:
        await session.execute(old, {"id": run_id})
    settings = RetentionSettings.from_env({"KEEP_RUNS_DAYS": "30"})
    await tidy(sessions, settings)
    books.then = books.answer
    assert (await books.runner.answer(await books.attempt(run_id))).output == "fine"
    assert books.told == [("pay", "paid")]
    await tidy(sessions, settings)
    async with sessions() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM runs WHERE continued_by = :id"), {"id": run_id}
        )
    assert left == 0


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("paid", "paid"),
        ({"paid": [1]}, '{"paid": [1]}'),
        (ToolFailed("No answer: nobody knows whether it was carried out."), "Unknown result"),
        (ToolReturn("paid", metadata={"secret": 1}), "Unknown result"),
        (object(), "Unknown result"),
    ],
    ids=["text", "JSON", "an error", "more than a result", "no JSON"],
)
async def test_approved_call_is_made_once_whatever_comes_of_it(
    sessions: Sessions, result: Any, told: str
) -> None:
    """Another call of the same answer is underway when the process dies, so that nothing is kept yet."""
    books = Bookkeeper(sessions, PAY, SLEEP)
    books.result = result
    run_id = await books.decided()
    await books.attempt_and_die(run_id)
    books.then = books.answer
    assert (await books.runner.answer(await books.attempt(run_id))).output == "fine"
    assert books.paid == 1
    found = dict(books.told)
    assert told.replace('"', "'") in found["pay"]
    assert "secret" not in found["pay"]
    assert "Unknown result" in found["sleep"]


async def test_agent_below_keeps_to_once(sessions: Sessions) -> None:
    """It approves of its calls itself, so nobody sees to them but their tools."""
    sent, reached = [], asyncio.Event()

    def agree(_: RunContext[Deps], requests: DeferredToolRequests) -> DeferredToolResults:
        return requests.build_results(approve_all=True)

    below = Agent(deps_type=Deps, capabilities=[HandleDeferredToolCalls(handler=agree)])
    agent = Agent(deps_type=Deps)

    @below.tool(requires_approval=True)
    @once
    async def send(ctx: RunContext[Deps]) -> str:
        sent.append(ctx.tool_call_id)
        reached.set()
        await asyncio.sleep(100)
        return "sent"

    def calling(name: str) -> Any:
        def think(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
            return ModelResponse([ToolCallPart(name, {}, tool_call_id=name)]) if len(messages) == 1 else FINE

        return think

    @agent.tool
    async def delegate(ctx: RunContext[Deps]) -> str:
        return str((await below.run("go", model=FunctionModel(calling("send")), deps=ctx.deps)).output)

    runner, attempts = service(sessions, agent, calling("delegate")), Attempts(sessions)
    run = await runner.start("a", ANONYMOUS, "go", queue=queue)

    async def attempt() -> str:
        work = await attempts.take(run.id)
        assert work
        taken = await runner.take_up(work, saving(attempts, work))
        options = runner.options(taken)
        return str((await taken.agent.run(taken.question, conversation=taken.conversation, **options)).output)

    task = asyncio.create_task(attempt())
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    await asyncio.wait([task])
    assert await asyncio.wait_for(attempt(), 20) == "fine"
    assert sent == ["send"]


async def test_decision_while_the_wait_is_being_told(sessions: Sessions) -> None:
    """They wait for each other, in one order, and nothing stays behind."""
    books, address, told = Bookkeeper(sessions, PAY), "https://example.com/hook", []

    async def tell(_: str, __: AsyncSession, found: str) -> None:
        told.append(found)

    async def queue_and_tell(run: StartedRun, session: AsyncSession) -> None:
        await put(session, run.id, run.caller, run.content, model=None, replaces=None, webhook=address)

    run = await books.runner.start("a", ANONYMOUS, "go", queue=queue_and_tell)
    assert (await books.runner.answer(await books.attempt(run.id))).calls
    async with sessions.begin() as deciding:
        decide = text("UPDATE runs SET status = 'continued', continued_by = id WHERE id = :id")
        await deciding.execute(decide, {"id": run.id})
        finishing = asyncio.create_task(books.attempts.finish(run.id, tell))
        await asyncio.sleep(0.5)
        assert not finishing.done()
        assert await take_webhook(deciding, run.id) == address
    await asyncio.wait_for(finishing, 20)
    assert told == [address]
    async with sessions() as session:
        left = text("SELECT count(*) FROM background_runs WHERE run_id = :id")
        assert await session.scalar(left, {"id": run.id}) == 0


class Carrying(Carrier):
    """Carries one run, without a worker."""

    async def carry(self, run_id: UUID) -> None:
        await self._carry(str(run_id))


def carrier(books: Bookkeeper, **variables: str) -> Carrying:
    settings = BackgroundSettings.from_env({"AGENT_BACKGROUND": "1", **variables})

    async def check(_: Caller) -> None: ...

    url = books.sessions.engine.url
    return Carrying(
        books.runner, books.sessions, settings, Webhooks(settings, plain=True), (), url, 30, check
    )
