"""`/v1/agents`: the agents, and running them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
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

from agents.failures import RunError
from agents.registry import AGENTS
from agents.runs import Answer, Runner, StartedRun
from agents.store import USAGE
from api.problems import problem
from api.routes.conversations import ConversationId
from api.services import ServicesOf
from api.streaming import EventStream, event, unless_disconnected

router = APIRouter(prefix="/v1/agents", tags=["agents"])


class AgentView(BaseModel):
    """An agent."""

    id: str
    name: str
    description: str


class AgentList(BaseModel):
    """All agents."""

    agents: list[AgentView]


class RunRequest(BaseModel, extra="forbid"):
    """What to ask, and in which conversation; without an id a new one starts."""

    input: str = Field(min_length=1, max_length=100_000)
    conversation_id: ConversationId | None = None


class RunView(BaseModel):
    """A run that has ended well."""

    run_id: UUID
    agent_id: str
    conversation_id: str
    model: str
    output: str
    usage: dict[str, Any]


@router.get("")
async def list_agents() -> AgentList:
    """List the agents that can be run."""
    return AgentList(
        agents=[
            AgentView(id=entry.id, name=entry.name, description=entry.description)
            for entry in AGENTS.values()
        ]
    )


@router.post(
    "/{agent_id}/runs",
    response_model=RunView,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def run_agent(
    agent_id: str,
    body: RunRequest,
    request: Request,
    services: ServicesOf,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response | RunView:
    """Run an agent and answer with its output.

    With the header `Accept: text/event-stream` the answer comes as server-sent events: `run`, then
    `text`, `tool_call` and `tool_result` as they happen, and at last `done` or `error`.
    """
    run = await services.runner.start(agent_id, body.input, body.conversation_id)
    if "text/event-stream" in accept.lower():
        return EventStream(_events(services.runner, run))
    return _view(await unless_disconnected(request, services.runner.answer(run)))


async def _events(runner: Runner, run: StartedRun) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(runner.stream(run)) as items:
            async for item in items:
                if message := _event(item):
                    yield message
    except RunError as failure:
        yield event("error", problem(failure.status, failure.detail))


def _event(item: StartedRun | AgentStreamEvent | Answer) -> bytes | None:
    """Write what callers care about; of pydantic-ai's events that isn't all."""
    match item:
        case StartedRun():
            return event("run", _identity(item))
        case Answer():
            return event("done", _view(item).model_dump(mode="json"))
        case (
            PartStartEvent(part=TextPart(content=text))
            | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
        ):
            return event("text", {"delta": text}) if text else None
        case FunctionToolCallEvent(part=call):
            arguments = call.args_as_dict()
            return event(
                "tool_call", {"id": call.tool_call_id, "name": call.tool_name, "arguments": arguments}
            )
        case FunctionToolResultEvent(part=result):
            content = result.model_response_str()
            return event(
                "tool_result", {"id": result.tool_call_id, "name": result.tool_name, "content": content}
            )
    return None


def _identity(run: StartedRun) -> dict[str, Any]:
    return {
        "run_id": str(run.id),
        "agent_id": run.agent_id,
        "conversation_id": run.conversation.conversation_id,
        "model": run.model.model_id,
    }


def _view(answer: Answer) -> RunView:
    usage = USAGE.dump_python(answer.usage, mode="json")
    return RunView(**_identity(answer.run), output=answer.output, usage={k: v for k, v in usage.items() if v})
