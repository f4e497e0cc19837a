"""`/v1/agents`: the agents, and running them. `/v1/runs`: what became of a run, its events again, and stopping it."""

from collections.abc import Awaitable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator

from chassis.agents.choice import ModelsOf
from chassis.agents.registry import AgentsOf
from chassis.conversations.routes import ConversationId, MessageId
from chassis.errors import RunError
from chassis.files.routes import FilesOf
from chassis.http.dependencies import SessionsOf, SettingsOf
from chassis.http.settings import ApiSettings
from chassis.http.streaming import EVENTS, EventStream, unless_disconnected
from chassis.keys.authentication import CallerOf
from chassis.keys.caller import Caller
from chassis.runs import feedback
from chassis.runs.approval import Decisions, results_of
from chassis.runs.errors import still_underway
from chassis.runs.records import RepeatedRun
from chassis.runs.runner import Runner
from chassis.runs.started import StartedRun
from chassis.runs.tables import RunStatus
from chassis.runs.views import (
    ModelChoice,
    RunnerOf,
    RunView,
    find_run,
    no_run,
    render,
    send_events,
    view_answer,
    view_queued,
)

agents = APIRouter(prefix="/v1/agents", tags=["agents"])
runs = APIRouter(prefix="/v1/runs", tags=["runs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x20-\x7e]{1,255}$",
        description="Your name for the request. Sent again with the same name, it doesn't run again.",
    ),
]

Prefer = Annotated[
    str, Header(max_length=1000, description="`respond-async` to have it run in the background")
]
IN_BACKGROUND: dict[int | str, dict[str, Any]] = {
    202: {
        "model": RunView,
        "description": "It runs in the background",
        "headers": {"Location": {"description": "where it is found", "schema": {"type": "string"}}},
    }
}


class AgentView(BaseModel):
    """An agent."""

    id: str
    name: str
    description: str


class AgentList(BaseModel):
    """All agents that the caller may run, and the models that a run may name in the header X-Model."""

    agents: list[AgentView]
    models: list[str] = []


class RunRequest(BaseModel, extra="forbid"):
    """What to ask, and in which conversation; without an id a new one starts."""

    input: str = Field("", max_length=100_000)
    attachments: list[UUID] = Field(
        default=[],
        max_length=1000,
        description="The ids of files that go with it, uploaded to `/v1/attachments`.",
    )
    conversation_id: ConversationId | None = None
    replaces: MessageId | None = Field(
        None,
        description="The id of a message of the user's in the conversation, to ask it in other words or once more: "
        "the input takes its place, and what came after it is left out from then on.",
    )
    webhook: str | None = Field(
        None,
        max_length=2000,
        description="With `Prefer: respond-async`, the address that is told of the run's end, signed as in the "
        "Standard Webhooks specification.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.input and not self.attachments:
            raise ValueError("input must say something, or attachments name files")
        return self

    @model_validator(mode="after")
    def _replaces_in_a_conversation(self) -> Self:
        if self.replaces is not None and self.conversation_id is None:
            raise ValueError("replaces needs the conversation_id of the message")
        return self


@agents.get("")
async def list_agents(known: AgentsOf, models: ModelsOf, caller: CallerOf) -> AgentList:
    """List the agents that can be run."""
    return AgentList(
        agents=[
            AgentView(id=entry.id, name=entry.name, description=entry.description)
            for entry in known.values()
            if caller.may_run(entry.id)
        ],
        models=list(models.offered),
    )


@agents.post(
    "/{agent_id}/runs",
    response_model=RunView,
    responses=EVENTS | IN_BACKGROUND,
)
async def run_agent(
    agent_id: str,
    body: RunRequest,
    request: Request,
    runner: RunnerOf,
    settings: SettingsOf,
    caller: CallerOf,
    files: FilesOf,
    idempotency_key: IdempotencyKey = None,
    model: ModelChoice = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    prefer: Prefer = "",
) -> Response | RunView:
    """Run an agent and answer with its output.

    With the header `Accept: text/event-stream` the answer comes as server-sent events: `run`, then
    `text`, `tool_call` and `tool_result` as they happen, and at last `done`, `waiting` or `error`. Each has an id,
    with which `GET /v1/runs/{run_id}/events` goes on after a lost connection.

    With the header `Prefer: respond-async` (RFC 7240) and AGENT_BACKGROUND it runs in the background: the answer is 202,
    and where the run is found.
    """
    queue = runner.queue if prefers_async(prefer) else None
    if body.webhook is not None:
        if queue is None:
            detail = "A webhook tells of runs in the background: send Prefer: respond-async"
            unset = "" if runner.queue else ", where the service has AGENT_BACKGROUND set"
            raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}{unset}.", final=True)
        await queue.check_webhook(body.webhook)
    shown = await files.refer(body.attachments, caller.owner)
    await files.check_room(caller.owner, shown, body.conversation_id)
    start = runner.start(
        agent_id,
        caller,
        [body.input, *shown] if body.input and shown else shown or body.input,
        conversation_id=body.conversation_id,
        replaces=body.replaces,
        idempotency_key=idempotency_key,
        model=model,
        queue=partial(queue.put, model=model, replaces=body.replaces, webhook=body.webhook)
        if queue
        else None,
    )
    return await _answer(start, request, runner, settings, caller, accept, queued=queue is not None)


async def _answer(
    start: Awaitable[StartedRun],
    request: Request,
    runner: Runner,
    settings: ApiSettings,
    caller: Caller,
    accept: str,
    *,
    queued: bool = False,
) -> Response | RunView:
    streamed = "text/event-stream" in accept.lower() and not queued
    try:
        run = await start
    except RepeatedRun as repeated:
        if streamed:
            return send_events(repeated.run_id, runner, caller, settings.ping_seconds)
        view = await find_run(repeated.run_id, runner, caller)
        if view.status in (RunStatus.RUNNING, "queued"):
            if queued:
                return accepted(view)
            raise still_underway() from None
        return view
    if queued:
        return accepted(view_queued(run))
    if streamed:
        runner.launch(run, render)
        return send_events(run.id, runner, caller, settings.ping_seconds)
    return view_answer(await unless_disconnected(request, runner.answer(run), run.token.cancel))


def prefers_async(prefer: str) -> bool:
    """Tell whether the header Prefer asks for an answer before there is a result."""
    return any(each.partition(";")[0].strip().lower() == "respond-async" for each in prefer.split(","))


def accepted(view: RunView) -> Response:
    """Answer that a run goes on in the background, and where it is found."""
    headers = {"Location": f"/v1/runs/{view.run_id}", "Preference-Applied": "respond-async"}
    return JSONResponse(view.model_dump(mode="json"), HTTPStatus.ACCEPTED, headers)


@runs.get("/{run_id}")
async def read_run(
    run_id: UUID, runner: RunnerOf, sessions: SessionsOf, caller: CallerOf
) -> feedback.RunWithFeedback:
    """Tell how far a run is, its answer if it has one, and what its caller thinks of it."""
    view = await find_run(run_id, runner, caller)
    return feedback.RunWithFeedback(**dict(view), feedback=await feedback.read(sessions, run_id))


@runs.post("/{run_id}/decisions", response_model=RunView, responses=EVENTS | IN_BACKGROUND)
async def decide_on_calls(
    run_id: UUID,
    body: Decisions,
    request: Request,
    runner: RunnerOf,
    settings: SettingsOf,
    caller: CallerOf,
    idempotency_key: IdempotencyKey = None,
    model: ModelChoice = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    prefer: Prefer = "",
) -> Response | RunView:
    """Approve or deny each of the calls that a run waits for, and go on with a run of its own.

    The answer is that run's, as of `POST /v1/agents/{agent_id}/runs`; the one that waited tells it in `continued_by`.
    With the header `Prefer: respond-async` it goes on in the background, as there.
    """
    queue = runner.queue if prefers_async(prefer) else None
    waiting = await runner.records.read(run_id, caller.owner)
    if waiting is None:
        raise no_run(run_id)
    decided = await runner.decide(waiting, results_of(body.decisions), caller)
    start = runner.start(
        waiting.agent_id,
        caller,
        "",
        conversation_id=waiting.conversation_id,
        idempotency_key=idempotency_key,
        request=f"{run_id}\0{body.model_dump_json()}",
        model=model,
        decided=decided,
        queue=partial(queue.put, model=model, waiting=waiting) if queue else None,
    )
    return await _answer(start, request, runner, settings, caller, accept, queued=queue is not None)


@runs.get("/{run_id}/events", status_code=HTTPStatus.OK, response_class=EventStream, responses=EVENTS)
async def read_events(
    run_id: UUID,
    runner: RunnerOf,
    settings: SettingsOf,
    caller: CallerOf,
    last_event_id: Annotated[int, Header(ge=0, le=2**31 - 1, description="the last event that you have")] = 0,
) -> Response:
    """Send the events of a streamed run from where the connection was lost, while it goes on and after."""
    await find_run(run_id, runner, caller)
    return send_events(run_id, runner, caller, settings.ping_seconds, last_event_id)


@runs.post("/{run_id}/cancel", status_code=HTTPStatus.ACCEPTED)
async def cancel_run(run_id: UUID, runner: RunnerOf, caller: CallerOf) -> None:
    """Stop a run. The question and what was said so far are kept; a run that has ended stays as it is."""
    if not await runner.cancel(run_id, caller.owner):
        raise no_run(run_id)


router = APIRouter()
router.include_router(agents)
router.include_router(runs)
