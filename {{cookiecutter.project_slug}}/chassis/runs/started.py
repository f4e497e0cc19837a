"""A run of this process, from its row on, and how it ended."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai import Agent, CancellationToken
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage, ModelRequest, UserContent
from pydantic_ai.models import Model
from pydantic_ai.usage import RunUsage

from chassis.agents.choice import first_of
from chassis.agents.deps import Deps
from chassis.conversations.contents import words
from chassis.conversations.store import Branch
from chassis.keys.caller import Caller
from chassis.runs.approval import Decided
from chassis.runs.usage import Meter, usage_in

# How long the answer to a wish to stop a run waits for its end, and so does the next run of its conversation.
STOP_SECONDS = 2


def own_messages(
    messages: Sequence[ModelMessage], run_id: str, resumed: Sequence[ModelMessage]
) -> list[ModelMessage]:
    """Return what an attempt at a run has added to what the ones before had kept."""
    new = [message for message in messages if message.run_id == run_id]
    # A request that a run is resumed with counts as its own.
    if resumed and isinstance(resumed[-1], ModelRequest):
        del new[:1]
    return new


@dataclass(slots=True)
class Unfinished:
    """What becomes of a run's messages if it is stopped; without `wanted` its conversation is as it was before.

    `timed_out` is why it was stopped, if that is why.
    """

    wanted: bool = False
    timed_out: bool = False
    # Tells what the caller has said, where that isn't the prompt.
    said: Callable[[], Awaitable[Sequence[ModelMessage]]] | None = None
    # All messages of a run that was decided on, as they come.
    noted: list[ModelMessage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that has its row; nothing was sent to the model yet."""

    id: uuid.UUID
    agent_id: str
    agent: Agent[Deps, Any]
    model: Model
    caller: Caller
    # What is asked, and shown with it.
    content: str | Sequence[UserContent]
    conversation: Conversation
    # Whether the conversation is kept here; else the caller sends it along each time.
    kept: bool
    token: CancellationToken
    deps: Deps
    meter: Meter
    began: float
    # Where it leaves the history of its conversation, if it doesn't go on at its end.
    branch: Branch | None = None
    # What the caller has told of before the prompt, to be kept with it.
    earlier: Sequence[ModelMessage] = ()
    # The person's word on the calls that the run before it waited for.
    decided: Decided | None = None
    # Which attempt this is at a run in the background, and what the ones before have brought, the end of `earlier`.
    attempt: int | None = None
    resumed: Sequence[ModelMessage] = ()
    save: Callable[[Sequence[ModelMessage]], Awaitable[None]] | None = None
    unfinished: Unfinished = field(default_factory=Unfinished)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Stop it on purpose: what it has said so far is kept, as whoever stopped it has seen it."""
        self.unfinished.wanted = True
        self.token.cancel()

    async def stopped(self) -> None:
        """Wait a little for its end, if it was stopped, or its caller has gone.

        Whoever stops a run asks something else next, which the one underway would keep out.
        """
        if self.token.cancelled:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), STOP_SECONDS)

    def brought(self) -> list[ModelMessage]:
        """Return what this attempt itself has brought of the messages that were noted."""
        return own_messages(self.unfinished.noted, str(self.id), self.resumed)

    @property
    def question(self) -> str | Sequence[UserContent] | None:
        """What the model is still to be asked."""
        return None if self.resumed else self.content or None

    @property
    def before(self) -> RunUsage:
        """What the conversation had used before it."""
        return self.conversation.usage - usage_in(self.resumed) if self.resumed else self.conversation.usage

    @property
    def model_id(self) -> str:
        """The model that is asked first."""
        return first_of(self.model).model_id

    @property
    def prompt(self) -> str:
        """What is asked, in words."""
        return words(self.content)

    @property
    def owner(self) -> str:
        """Whose run it is."""
        return self.caller.owner

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
    model_id: str
    # Those that wait for a person's word: then there is no output.
    calls: list[dict[str, Any]] = field(default_factory=list)
