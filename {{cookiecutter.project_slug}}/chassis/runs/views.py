"""A run as callers get it: as JSON, or as server-sent events."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from math import ceil
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, HTTPException
from pydantic import BaseModel, Field
from pydantic_ai import AgentStreamEvent
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from chassis.conversations.store import USAGE, used
from chassis.database.jsonb import encodable, restored
from chassis.errors import RunError
from chassis.http.dependencies import from_state
from chassis.http.problems import problem, run_problem
from chassis.http.streaming import PING, EventStream
from chassis.keys.caller import Caller
from chassis.runs.approval import OpenCall
from chassis.runs.errors import INTERRUPTED
from chassis.runs.events import LAST, Event
from chassis.runs.runner import Runner
from chassis.runs.started import Answer, StartedRun
from chassis.runs.tables import Run, RunStatus

RunnerOf = Annotated[Runner, from_state("runner")]
ModelChoice = Annotated[
    str | None,
    Header(
        alias="X-Model",
        max_length=200,
        description="The model that is to answer, one of those that GET /v1/agents lists; else the agent's own does.",
    ),
]


class RunView(BaseModel):
    """A run, and how it ended if it has."""

    run_id: UUID
    agent_id: str
    conversation_id: str | None
    model: str
    status: RunStatus | Literal["queued"]
    output: Any = None
    error: str | None = None
    usage: dict[str, Any] = {}
    calls: Annotated[
        list[OpenCall],
        Field(description="the calls of tools that a run waits, or has waited, to be approved"),
    ] = []
    continued_by: Annotated[UUID | None, Field(description="the run that went on with what was decided")] = (
        None
    )


async def find_run(run_id: UUID, runner: Runner, caller: Caller) -> RunView:
    """Return the caller's run.

    Raises:
        HTTPException: 404 if there is none.
    """
    row = await runner.records.read(run_id, caller.owner)
    if row is None:
        raise no_run(run_id)
    return view_run(row)


def send_events(
    run_id: UUID, runner: Runner, caller: Caller, ping_seconds: float, after: int = 0
) -> EventStream:
    """Answer with a run's events. When the caller goes away, the run goes on for AGENT_RESUME_SECONDS."""
    # A caller who hears nothing for longer has lost the connection, even if nobody has closed it.
    headers = {"X-Ping-Seconds": f"{ping_seconds:g}"}
    return EventStream(_events(run_id, runner, caller, after), ping_seconds=ping_seconds, headers=headers)


async def _events(run_id: UUID, runner: Runner, caller: Caller, after: int) -> AsyncGenerator[bytes]:
    # The answer starts before the next event is there.
    yield PING
    log = runner.logs.get(run_id)
    name = ""
    # Where an attempt at a run in the background doesn't end it, its next one goes on with the events elsewhere.
    for source in (log, None) if log and log.before <= after else (None,):
        async with aclosing(source.watch(after) if source else runner.events.watch(run_id, after)) as events:
            async for event in events:
                after, name = event.number, event.name
                yield encode_event(event)
        if name in LAST:
            break
    if name not in LAST and (row := await runner.records.read(run_id, caller.owner)):
        # Its events were never written, or are gone; how it ended isn't.
        yield encode_event(Event(after + 1, *_ending(row)))


def render(item: StartedRun | AgentStreamEvent | Answer | RunError) -> tuple[str, str] | None:
    """Return the name and the data of the event that callers get; of pydantic-ai's that isn't all."""
    match item:
        case StartedRun():
            return began(item)
        case Answer():
            return _event("waiting" if item.calls else "done", view_answer(item).model_dump(mode="json"))
        case RunError():
            # There is no header any more that could tell.
            later = {"retry_after": ceil(item.retry_after)} if item.retry_after else {}
            return _event("error", run_problem(item) | later)
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


def began(run: StartedRun) -> tuple[str, str]:
    """Return the first event of a run."""
    return _event("run", _identity(run))


def restarted(attempt: int) -> tuple[str, str]:
    """Return the event that a run in the background was begun again: what it said since its last tool is void."""
    return _event("restarted", {"attempt": attempt})


def view_answer(answer: Answer) -> RunView:
    """Return a run that has just ended well."""
    return RunView(
        **_identity(answer.run) | {"model": answer.model_id},
        status=RunStatus.WAITING if answer.calls else RunStatus.SUCCEEDED,
        output=answer.output,
        usage=used(answer.usage),
        calls=[OpenCall(**call) for call in answer.calls],
    )


def view_queued(run: StartedRun) -> RunView:
    """Return a run that waits to be carried in the background."""
    return RunView(**_identity(run), status="queued")


def _identity(run: StartedRun) -> dict[str, Any]:
    return {
        "run_id": str(run.id),
        "agent_id": run.agent_id,
        "conversation_id": run.conversation_id,
        "model": run.model_id,
    }


def view_run(row: Run) -> RunView:
    """Return a run as its row has it."""
    return RunView(
        run_id=row.id,
        agent_id=row.agent_id,
        conversation_id=row.conversation_id,
        model=row.model,
        status="queued" if row.status is RunStatus.RUNNING and row.attempts == 0 else row.status,
        output=restored(row.output),
        error=row.error,
        usage=used(USAGE.validate_python(row.usage)),
        calls=restored(row.calls) or [],
        continued_by=row.continued_by,
    )


def _ending(row: Run) -> tuple[str, str]:
    if row.status in (RunStatus.WAITING, RunStatus.CONTINUED):
        return _event("waiting", view_run(row).model_dump(mode="json"))
    if row.status is RunStatus.SUCCEEDED:
        return _event("done", view_run(row).model_dump(mode="json"))
    status = INTERRUPTED.status if row.status is RunStatus.INTERRUPTED else HTTPStatus.CONFLICT
    return _event("error", problem(status, row.error or "The run was cancelled."))


def encode_event(event: Event) -> bytes:
    """Write one event; JSON is always a single line."""
    return f"id: {event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode()


def _event(name: str, data: Any) -> tuple[str, str]:
    return name, encodable(json.dumps(data, ensure_ascii=False))


def no_run(run_id: UUID) -> HTTPException:
    """Return the error for a run that the caller doesn't have."""
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no run {run_id}.")
