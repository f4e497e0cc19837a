"""`/v1/responses`: the agents by OpenAI's newer API, whose clients go on from an answer that is kept here.

What is stored is a conversation like any other, in `/v1/conversations` and on the chat page; a response is one of
its runs. Tools are the agent's own: it calls them on the way, and the client gets the answer.

https://platform.openai.com/docs/api-reference/responses
"""

import time
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic_ai import AgentRunResultEvent
from pydantic_ai.ui import NativeEvent

from chassis.conversations.routes import StoreOf
from chassis.conversations.store import DatabaseConversationStore
from chassis.database.jsonb import restored
from chassis.errors import RunError
from chassis.files.routes import FilesOf
from chassis.http.dependencies import SettingsOf
from chassis.http.streaming import EVENTS, EventStream, unless_disconnected
from chassis.keys.authentication import CallerOf
from chassis.keys.caller import Caller
from chassis.protocols.openai_errors import OpenAIRoute, ParamError, refusal
from chassis.protocols.openai_files import show_files
from chassis.protocols.openai_messages import history_of, run_events, text_of
from chassis.protocols.response_requests import ResponseRequest, check, messages_of, settings_of, take_prompt
from chassis.protocols.response_views import RESPONSE, ResponseView, replay, run_id_of, stream, view_of
from chassis.runs.errors import still_underway
from chassis.runs.records import RepeatedRun
from chassis.runs.routes import IdempotencyKey
from chassis.runs.runner import Runner
from chassis.runs.started import StartedRun
from chassis.runs.tables import Run, RunStatus
from chassis.runs.views import ModelChoice, RunnerOf

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=OpenAIRoute)


@router.post("", response_model=ResponseView, responses=EVENTS)
async def create_response(
    body: ResponseRequest,
    request: Request,
    caller: CallerOf,
    runner: RunnerOf,
    store: StoreOf,
    files: FilesOf,
    settings: SettingsOf,
    idempotency_key: IdempotencyKey = None,
    chosen: ModelChoice = None,
) -> Response | ResponseView:
    """Run an agent. With `stream` the answer comes as server-sent events."""
    check(body)
    messages = await messages_of(body.input, lambda message_id: _text(message_id, runner, caller))
    shown = await show_files(messages, files, caller.owner, "input")
    prompt = take_prompt(messages)
    conversation_id, after = await _place(body, runner, caller)
    if body.store is not False:
        await files.check_room(caller.owner, shown, conversation_id)
    # Without an answer that is kept there is none for a second request.
    key = idempotency_key if body.store is not False else None
    try:
        run = await runner.start(
            body.model,
            caller,
            prompt,
            conversation_id=conversation_id,
            after=after.id if after else None,
            earlier=history_of(messages),
            keep=body.store is not False,
            idempotency_key=key,
            request=body.model_dump_json(exclude={"stream"}) if key else None,
            model=chosen,
        )
    except RepeatedRun as repeated:
        view = await _repeated(repeated, runner, store, caller)
        return EventStream(replay(view), ping_seconds=settings.ping_seconds) if body.stream else view
    options = runner.options(run) | {"model_settings": settings_of(body), "instructions": body.instructions}
    events = runner.track(run, run_events(run, prompt, options), save=run.kept, may_wait=run.kept)
    view = _begun(run, body)
    if not body.stream:
        return await unless_disconnected(request, _whole(run, events, view), run.token.cancel)
    return EventStream(
        stream(run, events, view),
        ping_seconds=settings.ping_seconds,
        on_disconnect=run.token.cancel,
        refuse=partial(refusal, request),
    )


@router.get("/{response_id}")
async def read_response(
    response_id: str,
    caller: CallerOf,
    runner: RunnerOf,
    store: StoreOf,
    streamed: Annotated[bool, Query(alias="stream")] = False,
) -> ResponseView:
    """Return a response, as far as it is."""
    row = await _find(response_id, runner, caller)
    if streamed:
        detail = "A response that is there isn't streamed: leave out stream"
        raise ParamError(HTTPStatus.BAD_REQUEST, detail, param="stream")
    return await _view(row, store)


@router.post("/{response_id}/cancel")
async def cancel_response(
    response_id: str, caller: CallerOf, runner: RunnerOf, store: StoreOf
) -> ResponseView:
    """Stop a response. The question and what was said so far are kept; one that has ended stays as it is."""
    row = await _find(response_id, runner, caller)
    await runner.cancel(row.id, caller.owner)
    return await _view(await _find(response_id, runner, caller), store)


@router.delete("/{response_id}", response_model=None)
async def delete_response(response_id: str, caller: CallerOf, runner: RunnerOf) -> None:
    """Refuse it: a response is a part of its conversation, which can be deleted."""
    row = await _find(response_id, runner, caller)
    detail = (
        f"A response isn't deleted alone: DELETE /v1/conversations/{row.conversation_id} deletes all of it."
    )
    raise ParamError(HTTPStatus.BAD_REQUEST, detail, param="response_id", code="not_supported")


async def _place(body: ResponseRequest, runner: Runner, caller: Caller) -> tuple[str | None, Run | None]:
    """Return the conversation to go on in, and its run to go on from, if that matters."""
    if not body.previous_response_id:
        return body.conversation_id, None
    row = await _read(body.previous_response_id, runner, caller)
    # What was done after a person's word belongs to the response that waited for it.
    while row and row.continued_by:
        row = await runner.records.read(row.continued_by, caller.owner)
    if row is None:
        detail = f"Previous response with id {body.previous_response_id!r} not found."
        raise ParamError(
            HTTPStatus.BAD_REQUEST, detail, param="previous_response_id", code="previous_response_not_found"
        )
    if row.status is RunStatus.RUNNING:
        detail = "The previous response is still underway. Send it again when that one has ended."
        raise RunError(HTTPStatus.CONFLICT, detail, retry_after=1)
    return row.conversation_id, row


async def _text(message_id: str, runner: Runner, caller: Caller) -> str:
    row = await _read(message_id, runner, caller)
    if row is None or row.status is not RunStatus.SUCCEEDED:
        raise ParamError(HTTPStatus.NOT_FOUND, f"Item with id {message_id!r} not found.", param="input")
    return text_of(restored(row.output))


def _begun(run: StartedRun, body: ResponseRequest) -> ResponseView:
    same = {"previous_response_id", "instructions", "max_output_tokens", "temperature", "top_p"}
    return ResponseView(
        id=f"{RESPONSE}{run.id.hex}",
        created_at=int(time.time()),
        model=run.agent_id,
        conversation={"id": run.conversation_id} if run.conversation_id else None,
        metadata=body.metadata or {},
        store=run.kept,
        **body.model_dump(include=same),
    )


async def _whole(run: StartedRun, events: AsyncGenerator[NativeEvent], view: ResponseView) -> ResponseView:
    async for event in events:
        if isinstance(event, AgentRunResultEvent):
            view = view.ended(run, event.result)
    return view


async def _repeated(
    repeated: RepeatedRun, runner: Runner, store: DatabaseConversationStore, caller: Caller
) -> ResponseView:
    row = await _find(f"{RESPONSE}{repeated.run_id}", runner, caller)
    if row.status is RunStatus.RUNNING:
        raise still_underway()
    return await _view(row, store)


async def _view(row: Run, store: DatabaseConversationStore) -> ResponseView:
    record = await store.read_record(str(row.conversation_id))
    try:
        last = (await store.read_entry(await store.find_end(record, str(row.id)))).message if record else None
    except KeyError:  # It has left nothing, or is from before its messages named it.
        last = None
    return view_of(row, last)


async def _find(response_id: str, runner: Runner, caller: Caller) -> Run:
    row = await _read(response_id, runner, caller)
    if row is None:
        detail = f"Response with id {response_id!r} not found."
        raise ParamError(HTTPStatus.NOT_FOUND, detail, param="response_id")
    return row


async def _read(any_id: str, runner: Runner, caller: Caller) -> Run | None:
    """Return the run that a response or a message is of, if it is the caller's, and kept."""
    run_id = run_id_of(any_id)
    row = await runner.records.read(run_id, caller.owner) if run_id else None
    return row if row is not None and row.conversation_id is not None else None
