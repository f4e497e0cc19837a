"""`/v1/agents`: the agents, and running them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field

from agents.records import RepeatedRun
from agents.registry import AGENTS
from api.auth import CallerOf
from api.routes.conversations import ConversationId
from api.routes.runs import RunView, find_run, render, send_events, view_answer
from api.services import ServicesOf
from api.streaming import EVENTS, unless_disconnected
from db.tables import RunStatus

router = APIRouter(prefix="/v1/agents", tags=["agents"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x20-\x7e]{1,255}$",
        description="Your name for the request. Sent again with the same name, it doesn't run again.",
    ),
]


class AgentView(BaseModel):
    """An agent."""

    id: str
    name: str
    description: str


class AgentList(BaseModel):
    """All agents that the caller may run."""

    agents: list[AgentView]


class RunRequest(BaseModel, extra="forbid"):
    """What to ask, and in which conversation; without an id a new one starts."""

    input: str = Field(min_length=1, max_length=100_000)
    conversation_id: ConversationId | None = None


@router.get("")
async def list_agents(caller: CallerOf) -> AgentList:
    """List the agents that can be run."""
    return AgentList(
        agents=[
            AgentView(id=entry.id, name=entry.name, description=entry.description)
            for entry in AGENTS.values()
            if caller.may_run(entry.id)
        ]
    )


@router.post(
    "/{agent_id}/runs",
    response_model=RunView,
    responses=EVENTS,
)
async def run_agent(
    agent_id: str,
    body: RunRequest,
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    idempotency_key: IdempotencyKey = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response | RunView:
    """Run an agent and answer with its output.

    With the header `Accept: text/event-stream` the answer comes as server-sent events: `run`, then
    `text`, `tool_call` and `tool_result` as they happen, and at last `done` or `error`. Each has an id,
    with which `GET /v1/runs/{run_id}/events` goes on after a lost connection.
    """
    runner = services.runner
    streamed = "text/event-stream" in accept.lower()
    try:
        run = await runner.start(
            agent_id,
            caller,
            body.input,
            conversation_id=body.conversation_id,
            idempotency_key=idempotency_key,
        )
    except RepeatedRun as repeated:
        if streamed:
            return send_events(repeated.run_id, services, caller)
        view = await find_run(repeated.run_id, services, caller)
        if view.status is RunStatus.RUNNING:
            detail = "The first request with this Idempotency-Key is still underway."
            raise HTTPException(HTTPStatus.CONFLICT, detail, {"Retry-After": "1"}) from None
        return view
    if streamed:
        runner.launch(run, render)
        return send_events(run.id, services, caller)
    return view_answer(await unless_disconnected(request, runner.answer(run), run.token.cancel))
