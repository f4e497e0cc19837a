"""What the routes of pydantic-ai's protocols for user interfaces share.

Its adapters speak the protocol, load the conversation and store it. The Runner sees to the rest: whose
conversation it is, who may write to it now, limits, the row in `runs`, and words fit for the caller.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias, cast

from fastapi import Depends
from pydantic import WithJsonSchema
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.exceptions import RunCancelled, RunTimedOut, UserError
from pydantic_ai.messages import (
    FileUrl,
    ModelMessage,
    ModelResponse,
    RetryPromptPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
)
from pydantic_ai.ui import NativeEvent, UIAdapter
from starlette.concurrency import run_in_threadpool

from chassis.agents.deps import Deps
from chassis.conversations.contents import words
from chassis.conversations.routes import StoreOf
from chassis.conversations.store import DatabaseConversationStore
from chassis.errors import RunError
from chassis.files.references import items
from chassis.files.routes import FilesOf
from chassis.files.store import FileStore
from chassis.http.dependencies import SettingsOf
from chassis.http.settings import ApiSettings
from chassis.http.streaming import EventStream
from chassis.keys.caller import Caller
from chassis.runs.approval import Decided
from chassis.runs.runner import Runner
from chassis.runs.started import StartedRun
from chassis.runs.views import ModelChoice, RunnerOf

Adapter: TypeAlias = UIAdapter[Any, Any, Any, Deps, Any]

NOTHING_NEW = "Nothing new was sent: the last message is the user's, or the result of a tool that was called."
SCHEMES = frozenset({"http", "https"})
# In our documentation: what is in a message the protocol's own tells, at length.
DOCUMENTED = WithJsonSchema({"type": "array", "items": {"type": "object"}})


@dataclass(frozen=True, slots=True)
class Services:
    """What the adapters work with."""

    runner: Runner
    store: DatabaseConversationStore
    files: FileStore
    settings: ApiSettings
    # The model that the request wants.
    model: str | None


async def _services(
    runner: RunnerOf, store: StoreOf, files: FilesOf, settings: SettingsOf, model: ModelChoice = None
) -> Services:
    return Services(runner, store, files, settings, model)


ServicesOf = Annotated[Services, Depends(_services)]


async def stream(
    kind: type[Adapter],
    body: Any,
    services: Services,
    agent_id: str,
    caller: Caller,
    *,
    loaded: Sequence[ModelMessage],
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
        loaded: the same messages as pydantic-ai's.
        conversation_id: the id that the client gave the conversation, new or not.
        options: more for the adapter.

    Raises:
        RunError: as `Runner.start`; what goes wrong later is an event.
    """
    if conversation_id == "new":  # by which the adapters would mean any new conversation
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, "A conversation can't have the id 'new'.")
    shown = list(items(new_turn(loaded)))
    if shown:
        await run_in_threadpool(services.files.check_sent, shown)
        await services.files.check_room(caller.owner, shown)
    await _check_results(loaded, services.store, conversation_id)
    prompt = next(
        (words(part.content) for part in reversed(_parts(loaded)) if isinstance(part, UserPromptPart)), ""
    )
    runner = services.runner
    options |= {"conversation_store": services.store, "conversation_scope": caller.owner}
    adapter = kind(runner.find_agent(agent_id, caller).agent, body, **options)
    run = await runner.start(
        agent_id,
        caller,
        prompt,
        conversation_id=conversation_id,
        create=True,
        model=services.model,
        decided=await _decided(adapter, runner, caller, conversation_id, loaded),
    )
    # A client that is stopped goes away, and goes on showing what it has.
    run.unfinished.wanted = True
    run.unfinished.said = partial(_said, adapter, body.messages, loaded, services.store, run)
    return EventStream(
        _encoded(adapter, runner, run),
        ping_seconds=services.settings.ping_seconds,
        on_disconnect=run.token.cancel,
        headers=adapter.build_event_stream().response_headers,
    )


async def _decided(
    adapter: Adapter, runner: Runner, caller: Caller, conversation_id: str, loaded: Sequence[ModelMessage]
) -> Decided | None:
    """Return the person's word that the request brings on what the conversation waits for, if it brings one.

    A client that sends all messages each time sends what was decided before too, which counts no more.
    """
    try:
        results = adapter.deferred_tool_results
    except UserError as error:
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), final=True) from error
    if results is None:
        return None
    waiting = await runner.records.read_waiting(conversation_id, caller.owner)
    asked = {call["id"] for call in waiting.calls or ()} if waiting else set()
    results.approvals = {call: word for call, word in results.approvals.items() if call in asked}
    if waiting and results.approvals:
        return await runner.decide(waiting, results, caller)
    if not any(isinstance(part, UserPromptPart) for part in _parts(new_turn(loaded))):
        detail = "The conversation waits for no decision: there was one already, or it went on without."
        raise RunError(HTTPStatus.CONFLICT, detail, final=True)
    adapter.deferred_tool_results = None
    return None


async def _check_results(
    loaded: Sequence[ModelMessage], store: DatabaseConversationStore, conversation_id: str
) -> None:
    """Refuse a turn of nothing but results of tools that nobody waits for: they come late, or twice.

    The adapters leave them out, and would have nothing to go on with.
    """
    newest = _parts(new_turn(loaded))
    results = [part.tool_call_id for part in newest if isinstance(part, (ToolReturnPart, RetryPromptPart))]
    if not results or any(isinstance(part, UserPromptPart) for part in newest):
        return
    record = await store.read_record(conversation_id)
    waiting = record.deferred_tool_requests if record else None
    if waiting is None or {call.tool_call_id for call in waiting.calls}.isdisjoint(results):
        detail = f"The conversation waits for no result of the tool call {results[-1]!r}"
        detail += ": it has one already, or goes on without it, or nobody has called the tool."
        raise RunError(HTTPStatus.CONFLICT, detail, final=True)


def new_turn(loaded: Sequence[ModelMessage]) -> Sequence[ModelMessage]:
    """Return what came after the last answer: of the messages only these count, the rest is kept here."""
    answers = [at for at, message in enumerate(loaded) if isinstance(message, ModelResponse)]
    return loaded[answers[-1] + 1 :] if answers else loaded


async def _said(
    adapter: Adapter,
    messages: Sequence[Any],
    loaded: Sequence[ModelMessage],
    store: DatabaseConversationStore,
    run: StartedRun,
) -> Sequence[ModelMessage]:
    """Return what the client has said that isn't stored yet.

    Raises:
        ConversationConflict: if it is stored, and was to be answered anew, or in new words: the old ones stay.
    """
    stored = await store.load(str(run.conversation_id), scope=run.owner)
    known = {message.id for message in adapter.dump_messages(stored.messages if stored else ())}
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not known.isdisjoint(message.id for message in messages[answers[-1] + 1 if answers else 0 :]):
        raise ConversationConflict(str(run.conversation_id))
    prompts = [m for m in new_turn(loaded) if any(isinstance(part, UserPromptPart) for part in m.parts)]
    return adapter.sanitize_messages(prompts)


def check_files(loaded: Sequence[ModelMessage]) -> None:
    """Refuse what is attached in a way that the adapters would leave out without a word.

    Raises:
        ValueError: saying which.
    """
    for part in _parts(new_turn(loaded)):
        content = getattr(part, "content", None)
        for item in content if isinstance(content, (list, tuple)) else ():
            scheme = item.url.partition(":")[0].lower() if isinstance(item, FileUrl) else ""
            if scheme and scheme not in SCHEMES:
                raise ValueError(f"a file's address starts with https:, http: or data:, not {scheme}:")
            if isinstance(item, UploadedFile):
                raise ValueError(
                    "a file that only its provider knows can't be used here: send the file itself"
                )


def _parts(messages: Sequence[ModelMessage]) -> list[Any]:
    return [part for message in messages for part in message.parts]


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
        nothing = str(error).startswith("Processed history")
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, NOTHING_NEW if nothing else str(error)) from error
