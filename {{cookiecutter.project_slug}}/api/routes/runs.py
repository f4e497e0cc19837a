"""`/v1/runs`: what became of a run, its events again after a lost connection, and stopping it."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Response
from pydantic import BaseModel
from pydantic_ai import AgentStreamEvent
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from agents.callers import Caller
from agents.events import LAST, Event
from agents.failures import INTERRUPTED, RunError
from agents.runs import Answer, StartedRun
from agents.store import USAGE, encodable, restored, used
from api.auth import CallerOf
from api.problems import problem
from api.services import Services, ServicesOf
from api.streaming import EVENTS, PING, EventStream, encoded
from db.tables import Run, RunStatus

router = APIRouter(prefix="/v1/runs", tags=["runs"])


class RunView(BaseModel):
    """A run, and how it ended if it has."""

    run_id: UUID
    agent_id: str
    conversation_id: str | None
    model: str
    status: RunStatus
    output: Any = None
    error: str | None = None
    usage: dict[str, Any] = {}


@router.get("/{run_id}")
async def read_run(run_id: UUID, services: ServicesOf, caller: CallerOf) -> RunView:
    """Tell how far a run is, and its answer if it has one."""
    return await find_run(run_id, services, caller)


@router.get("/{run_id}/events", status_code=HTTPStatus.OK, response_class=EventStream, responses=EVENTS)
async def read_events(
    run_id: UUID,
    services: ServicesOf,
    caller: CallerOf,
    last_event_id: Annotated[int, Header(ge=0, le=2**31 - 1, description="the last event that you have")] = 0,
) -> Response:
    """Send the events of a streamed run from where the connection was lost, while it goes on and after."""
    await find_run(run_id, services, caller)
    return send_events(run_id, services, caller, last_event_id)


@router.post("/{run_id}/cancel", status_code=HTTPStatus.ACCEPTED)
async def cancel_run(run_id: UUID, services: ServicesOf, caller: CallerOf) -> None:
    """Stop a run. Its conversation is then as it was before; a run that has ended stays as it is."""
    if not await services.runner.cancel(run_id, caller.owner):
        raise _no_run(run_id)


async def find_run(run_id: UUID, services: Services, caller: Caller) -> RunView:
    """Return the caller's run.

    Raises:
        HTTPException: 404 if there is none.
    """
    row = await services.runner.records.read(run_id, caller.owner)
    if row is None:
        raise _no_run(run_id)
    return _view_of(row)


def send_events(run_id: UUID, services: Services, caller: Caller, after: int = 0) -> EventStream:
    """Answer with a run's events. When the caller goes away, the run goes on for AGENT_RESUME_SECONDS."""
    return EventStream(_events(run_id, services, caller, after), ping_seconds=services.settings.ping_seconds)


async def _events(run_id: UUID, services: Services, caller: Caller, after: int) -> AsyncGenerator[bytes]:
    # The answer starts before the next event is there.
    yield PING
    runner = services.runner
    log = runner.logs.get(run_id)
    name = ""
    async with aclosing(log.watch(after) if log else runner.events.watch(run_id, after)) as events:
        async for event in events:
            after, name = event.number, event.name
            yield encoded(event)
    if name not in LAST and (row := await runner.records.read(run_id, caller.owner)):
        # Its events were never written, or are gone; how it ended isn't.
        yield encoded(Event(after + 1, *_ending(row)))


def render(item: StartedRun | AgentStreamEvent | Answer | RunError) -> tuple[str, str] | None:
    """Return the name and the data of the event that callers get; of pydantic-ai's that isn't all."""
    match item:
        case StartedRun():
            data: Any = _identity(item)
            return _event("run", data)
        case Answer():
            return _event("done", view_answer(item).model_dump(mode="json"))
        case RunError():
            return _event("error", problem(item.status, item.detail))
        case (
            PartStartEvent(part=TextPart(content=text))
            | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
        ):
            return _event("text", {"delta": text}) if text else None
        case FunctionToolCallEvent(part=call):
            arguments = call.args_as_dict()
            return _event(
                "tool_call", {"id": call.tool_call_id, "name": call.tool_name, "arguments": arguments}
            )
        case FunctionToolResultEvent(part=result):
            content = result.model_response_str()
            return _event(
                "tool_result", {"id": result.tool_call_id, "name": result.tool_name, "content": content}
            )
    return None


def view_answer(answer: Answer) -> RunView:
    """Return a run that has just ended well."""
    return RunView(
        **_identity(answer.run), status=RunStatus.SUCCEEDED, output=answer.output, usage=used(answer.usage)
    )


def _identity(run: StartedRun) -> dict[str, Any]:
    return {
        "run_id": str(run.id),
        "agent_id": run.agent_id,
        "conversation_id": run.conversation_id,
        "model": run.model.model_id,
    }


def _view_of(row: Run) -> RunView:
    return RunView(
        run_id=row.id,
        agent_id=row.agent_id,
        conversation_id=row.conversation_id,
        model=row.model,
        status=row.status,
        output=restored(row.output),
        error=row.error,
        usage=used(USAGE.validate_python(row.usage)),
    )


def _ending(row: Run) -> tuple[str, str]:
    if row.status is RunStatus.SUCCEEDED:
        return _event("done", _view_of(row).model_dump(mode="json"))
    status = INTERRUPTED.status if row.status is RunStatus.INTERRUPTED else HTTPStatus.CONFLICT
    return _event("error", problem(status, row.error or "The run was cancelled."))


def _event(name: str, data: Any) -> tuple[str, str]:
    return name, encodable(json.dumps(data, ensure_ascii=False))


def _no_run(run_id: UUID) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no run {run_id}.")
