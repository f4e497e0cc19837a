"""What the routes of pydantic-ai's protocols for user interfaces share.

Its adapters speak the protocol, load the conversation and store it. The Runner sees to the rest: whose
conversation it is, who may write to it now, limits, the row in `runs`, and words fit for the caller.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, TypeAlias, cast

from pydantic import WithJsonSchema
from pydantic_ai.exceptions import RunCancelled, RunTimedOut, UserError
from pydantic_ai.ui import NativeEvent, UIAdapter

from agents.callers import Caller
from agents.deps import Deps
from agents.failures import RunError
from agents.runs import Runner, StartedRun
from api.services import Services
from api.streaming import EventStream

Adapter: TypeAlias = UIAdapter[Any, Any, Any, Deps, Any]

# In our documentation: what is in a message the protocol's own tells, at length.
DOCUMENTED = WithJsonSchema({"type": "array", "items": {"type": "object"}})


async def stream(
    kind: type[Adapter],
    body: Any,
    services: Services,
    agent_id: str,
    caller: Caller,
    *,
    conversation_id: str,
    **options: Any,
) -> EventStream:
    """Run the agent on what came in the body and answer with the protocol's events.

    Args:
        kind: the adapter for the protocol.
        body: what the protocol's client sent.
        services: the service's.
        agent_id: which agent.
        caller: who asks.
        conversation_id: the id that the client gave the conversation, new or not.
        options: more for the adapter.

    Raises:
        RunError: as `Runner.start`; what goes wrong later is an event.
    """
    if conversation_id == "new":  # by which the adapters would mean any new conversation
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, "A conversation can't have the id 'new'.")
    prompt = _newest_prompt(body.messages)
    runner = services.runner
    run = await runner.start(agent_id, caller, prompt, conversation_id=conversation_id, create=True)
    options |= {"conversation_store": services.store, "conversation_scope": caller.owner}
    adapter = kind(run.agent, body, **options)
    return EventStream(
        _encoded(adapter, runner, run),
        ping_seconds=services.settings.ping_seconds,
        on_disconnect=run.token.cancel,
        headers=adapter.build_event_stream().response_headers,
    )


def _newest_prompt(messages: Sequence[Any]) -> str:
    """Return the text of the user's newest message, whichever way the protocol writes it."""
    said = [message for message in messages if message.role == "user"]
    if not said:
        return ""
    content: Any = getattr(said[-1], "content", None) or getattr(said[-1], "parts", ())
    return content if isinstance(content, str) else " ".join(p.text for p in content if p.type == "text")


async def _encoded(adapter: Adapter, runner: Runner, run: StartedRun) -> AsyncGenerator[bytes]:
    async with aclosing(_tracked(adapter, runner, run)) as events:
        async for text in adapter.encode_stream(adapter.transform_stream(events)):
            yield text.encode()


async def _tracked(adapter: Adapter, runner: Runner, run: StartedRun) -> AsyncGenerator[NativeEvent]:
    try:
        async with aclosing(runner.track(run, _native(adapter, runner.options(run)))) as events:
            async for event in events:
                yield event
    except RunError as failure:
        # The protocols have a word of their own for a run that was stopped on purpose.
        cause = failure.__cause__
        stopped = isinstance(cause, RunCancelled) and not isinstance(cause, RunTimedOut)
        raise (cause if stopped and cause else failure) from None


async def _native(adapter: Adapter, options: dict[str, Any]) -> AsyncGenerator[NativeEvent]:
    try:
        events = cast("AsyncGenerator[NativeEvent]", adapter.run_stream_native(**options))
        async with aclosing(events):
            async for event in events:
                yield event
    except UserError as error:
        # Either the adapter's word for an error of the store, or what is wrong with the request.
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from error
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
