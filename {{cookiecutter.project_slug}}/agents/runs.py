"""Running an agent in a conversation, with a row in `runs` that says how it went.

No database connection is held while the model thinks: there is one transaction before and two after.
"""

import logging
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
from pydantic_ai import Agent, AgentRunResult, AgentRunResultEvent, AgentStreamEvent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationRecord
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.usage import RunUsage, UsageLimits
from sqlalchemy import func, insert, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from agents.failures import RunError, explain
from agents.models import NoModelError
from agents.registry import AGENTS
from agents.settings import AgentSettings
from agents.store import USAGE, DatabaseConversationStore, encodable, record_columns
from db import tables
from db.tables import RunStatus

TITLE_LENGTH = 80

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that has its row; nothing was sent to the model yet."""

    id: uuid.UUID
    agent_id: str
    agent: Agent[None, str]
    model: Model
    conversation: Conversation
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How a run ended that ended well; `usage` is of this run alone."""

    run: StartedRun
    output: str
    usage: RunUsage


class Runner:
    """Starts runs and sees them through to their end."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        store: DatabaseConversationStore,
        model: Model | NoModelError,
        settings: AgentSettings,
    ) -> None:
        """Keep what runs need. Where no model is to be had, `model` is the reason, given to each run."""
        self._sessions = sessions
        self._store = store
        self._model = model
        self._settings = settings
        self._underway: set[uuid.UUID] = set()

    async def start(self, agent_id: str, text: str, conversation_id: str | None) -> StartedRun:
        """Note the start of a run, in a new conversation or in the one with the id.

        Raises:
            RunError: if there is no such agent or conversation, or no model can answer.
        """
        registered = AGENTS.get(agent_id)
        if registered is None:
            known = ", ".join(AGENTS)
            raise RunError(HTTPStatus.NOT_FOUND, f"There is no agent {agent_id!r}. There are: {known}.")
        if isinstance(self._model, NoModelError):
            raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, str(self._model))
        conversation = Conversation() if conversation_id is None else await self._store.load(conversation_id)
        if conversation is None:
            raise _no_conversation(conversation_id)
        run = StartedRun(uuid.uuid4(), agent_id, registered.agent, self._model, conversation, text)
        try:
            async with self._sessions.begin() as session:
                if conversation_id is None:
                    await _insert_conversation(session, conversation, text)
                await session.execute(
                    insert(tables.Run).values(
                        id=run.id,
                        conversation_id=conversation.conversation_id,
                        agent_id=agent_id,
                        model=run.model.model_id,
                    )
                )
        except IntegrityError as error:  # Somebody deleted it since it was loaded.
            raise _no_conversation(conversation_id) from error
        self._underway.add(run.id)
        return run

    async def close(self) -> None:
        """Write the end of the runs still underway: the process stops before they can do it themselves."""
        await self._end(self._underway, RunStatus.CANCELLED)

    async def answer(self, run: StartedRun) -> Answer:
        """Run the agent and return its answer once all of it is stored.

        Raises:
            RunError: for whatever goes wrong. The conversation is then as it was before.
        """
        try:
            return await self._save(run, await run.agent.run(run.text, **self._options(run)))
        except Exception as error:
            raise await self._fail(run, error) from error
        except BaseException:
            await self._end([run.id], RunStatus.CANCELLED)
            raise

    async def stream(self, run: StartedRun) -> AsyncGenerator[StartedRun | AgentStreamEvent | Answer]:
        """Run the agent and yield the run, what happens as it happens, and at last the answer, stored.

        Once it has yielded the run, closing or cancelling the iterator cancels the run.

        Raises:
            RunError: as `answer`.
        """
        try:
            yield run
            async with run.agent.run_stream_events(run.text, **self._options(run)) as events:
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        result = event.result
                    else:
                        yield event
            answer = await self._save(run, result)
        except Exception as error:
            raise await self._fail(run, error) from error
        except BaseException:
            await self._end([run.id], RunStatus.CANCELLED)
            raise
        yield answer

    def _options(self, run: StartedRun) -> dict[str, Any]:
        # A conversation carries the usage of all its runs, and limits are counted from its start.
        limit = run.conversation.usage.requests + self._settings.request_limit
        return {
            "conversation": run.conversation,
            "model": run.model,
            "timeout": self._settings.timeout,
            "usage_limits": UsageLimits(request_limit=limit),
        }

    async def _save(self, run: StartedRun, result: AgentRunResult[str]) -> Answer:
        await self._store.save(result)
        usage = _usage_of(run, result)
        await self._end([run.id], RunStatus.SUCCEEDED, usage=USAGE.dump_python(usage, mode="json"))
        return Answer(run, encodable(result.output), usage)

    async def _fail(self, run: StartedRun, error: Exception) -> RunError:
        failure = explain(error)
        if failure.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("Run %s failed", run.id, exc_info=error)
        else:
            logger.warning("Run %s failed: %s: %s", run.id, type(error).__name__, failure.detail)
        await self._end([run.id], RunStatus.FAILED, error=failure.detail)
        return failure

    async def _end(self, runs: Iterable[uuid.UUID], status: RunStatus, **values: Any) -> None:
        # What the caller gets stands by now: an answer that is stored doesn't fail for want of this row.
        if not (ids := list(runs)):
            return
        table = tables.Run
        ended = update(table).where(table.id.in_(ids), table.status == RunStatus.RUNNING)
        try:
            # A run that is being cancelled still gets its row written.
            with anyio.CancelScope(shield=True):
                async with self._sessions.begin() as session:
                    await session.execute(ended.values(status=status, finished_at=func.now(), **values))
        except SQLAlchemyError:
            logger.exception("The end could not be written of run %s", ", ".join(map(str, ids)))
        finally:
            self._underway.difference_update(ids)


async def _insert_conversation(session: AsyncSession, conversation: Conversation, text: str) -> None:
    record = ConversationRecord(conversation_id=conversation.conversation_id, head_id=None)
    title = " ".join(text.replace("\0", " ").split())[:TITLE_LENGTH]
    await session.execute(insert(tables.Conversation).values(**record_columns(record), title=title))
    conversation.revision = record.revision


def _no_conversation(conversation_id: str | None) -> RunError:
    return RunError(
        HTTPStatus.NOT_FOUND,
        f"There is no conversation {conversation_id!r}. Leave conversation_id out to start one.",
    )


def _usage_of(run: StartedRun, result: AgentRunResult[str]) -> RunUsage:
    """The usage of this run, taken out of that of the whole conversation."""
    usage = RunUsage(tool_calls=result.usage.tool_calls - run.conversation.usage.tool_calls)
    for message in result.new_messages():
        if isinstance(message, ModelResponse):
            usage.incr(message.usage)
            usage.requests += 1
    return usage
