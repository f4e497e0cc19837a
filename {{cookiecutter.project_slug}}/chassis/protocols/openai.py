"""`/v1/chat/completions` and `/v1/models`: the agents as models of OpenAI's API, for clients that speak it.

The client keeps the history and sends all of it each time, so nothing that is said is stored. Tools are
the agent's own: it calls them on the way, and the client gets the answer.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_ai import AgentRunResult, AgentRunResultEvent, DeferredToolRequests
from pydantic_ai import messages as ai
from pydantic_ai.ui import NativeEvent

from chassis.agents.registry import AgentsOf
from chassis.database.jsonb import encodable
from chassis.errors import RunError
from chassis.files.routes import FilesOf
from chassis.http.dependencies import SettingsOf
from chassis.http.streaming import EVENTS, EventStream, unless_disconnected
from chassis.keys.authentication import CallerOf
from chassis.protocols.openai_errors import OpenAIRoute, Refused, RefusedForm, refusal
from chassis.protocols.openai_files import refuse_foreign, show_files
from chassis.protocols.openai_messages import (
    CONTINUE,
    Limit,
    Message,
    answer_of,
    history_of,
    run_events,
)
from chassis.runs.started import StartedRun
from chassis.runs.views import ModelChoice, RunnerOf

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute)
elsewhere = APIRouter(prefix="/v1", route_class=OpenAIRoute, include_in_schema=False)

# What else OpenAI's clients ask for, and all below it: its base URL is here, but these are not.
ELSEWHERE = (
    "completions", "embeddings", "moderations", "images", "audio", "videos", "files", "uploads",
    "batches", "vector_stores", "assistants", "threads", "realtime", "containers", "evals", "fine_tuning",
    "chat/completions/{at:path}", "responses/{response_id}/input_items", "responses/input_tokens", "responses/compact",
)  # fmt: skip


def _readable(messages: list[Message]) -> list[Message]:
    # In an earlier turn a picture is what another model was asked about: the conversation must go on here.
    answered = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=-1)
    for number, message in enumerate(messages):
        if number < answered:
            continue
        refuse_foreign(f"messages.{number}", message.role, message.content)
    return messages


class ChatRequest(BaseModel):
    """The conversation so far, up to what the user says now. Members that aren't listed are ignored."""

    model: str = Field(description="the id of an agent")
    messages: Annotated[list[Message], Field(min_length=1), AfterValidator(_readable)]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: Limit = None
    max_completion_tokens: Limit = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    tools: Refused = None
    functions: Refused = None
    response_format: RefusedForm = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_to_be_used(cls, body: Any) -> Any:
        """Leave out tools that the request says not to call."""
        for choice, unused in (("tool_choice", "tools"), ("function_call", "functions")):
            if isinstance(body, dict) and body.get(choice) == "none":
                body = {name: value for name, value in body.items() if name != unused}
        return body


class ChatCompletion(BaseModel):
    """An answer. Its id ends with the run's; its usage is that of all requests to the agent's model."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]


class ModelView(BaseModel):
    """An agent."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "agents"


class ModelList(BaseModel):
    """All agents."""

    object: Literal["list"] = "list"
    data: list[ModelView]


@router.get("/models")
async def list_models(agents: AgentsOf, caller: CallerOf) -> ModelList:
    """List the agents that the key may run."""
    return ModelList(data=[ModelView(id=name) for name in agents if caller.may_run(name)])


@router.get("/models/{model}")
async def read_model(model: str, agents: AgentsOf, caller: CallerOf) -> ModelView:
    """Tell whether there is an agent with this id."""
    if model not in agents or not caller.may_run(model):
        detail = f"There is no agent {model!r}. GET /v1/models lists them."
        raise RunError(HTTPStatus.NOT_FOUND, detail, code="model_not_found")
    return ModelView(id=model)


@router.post("/chat/completions", response_model=ChatCompletion, responses=EVENTS)
async def complete_chat(
    body: ChatRequest,
    request: Request,
    caller: CallerOf,
    runner: RunnerOf,
    settings: SettingsOf,
    files: FilesOf,
    chosen: ModelChoice = None,
) -> Response | dict[str, Any]:
    """Run an agent on the messages. With `stream` the answer comes as server-sent events."""
    if all(message.role != "user" for message in body.messages):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "One of the messages must be the user's.")
    earlier: list[Message] = body.messages
    await show_files(body.messages, files, caller.owner, "messages")
    prompt: str | list[ai.UserContent] | None = None  # where a tool's result is what to go on with
    match body.messages[-1].role:
        case "user":
            *earlier, last = body.messages
            prompt = last.shown
        case "assistant":
            prompt = CONTINUE
    run = await runner.start(
        body.model, caller, prompt or "", earlier=history_of(earlier), keep=False, model=chosen
    )
    options = runner.options(run) | {"model_settings": _settings(body)}
    events = runner.track(run, run_events(run, prompt, options))
    head = {"id": f"chatcmpl-{run.id}", "created": int(time.time()), "model": body.model}
    if not body.stream:
        return await unless_disconnected(request, _whole(run, events, head), run.token.cancel)
    with_usage = bool((body.stream_options or {}).get("include_usage"))
    head["object"] = "chat.completion.chunk"
    return EventStream(
        _chunks(run, events, head, with_usage),
        ping_seconds=settings.ping_seconds,
        # Not every client knows that a line may be a comment.
        ping=_data({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": None}]}),
        on_disconnect=run.token.cancel,
        refuse=partial(refusal, request),
    )


async def _elsewhere(request: Request) -> Response:
    detail = (
        f"{request.url.path} isn't served here. POST /v1/chat/completions or /v1/responses runs an agent, "
        "GET /v1/models lists them."
    )
    raise HTTPException(HTTPStatus.NOT_FOUND, detail)


for _path in ELSEWHERE:
    for _below in (_path,) if "{" in _path else (_path, f"{_path}/{{at:path}}"):
        elsewhere.add_api_route(f"/{_below}", _elsewhere, methods=["GET", "POST", "DELETE"])


async def _whole(
    run: StartedRun, events: AsyncGenerator[NativeEvent], head: dict[str, Any]
) -> dict[str, Any]:
    async for event in events:
        if isinstance(event, AgentRunResultEvent):
            message = {"role": "assistant", "content": answer_of(run.id, event.result)}
            choice = {"index": 0, "message": message, "finish_reason": _finish_reason(event.result)}
            usage = _usage(event.result)
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


async def _chunks(
    run: StartedRun, events: AsyncGenerator[NativeEvent], head: dict[str, Any], with_usage: bool
) -> AsyncGenerator[bytes]:
    def chunk(finish: str | None = None, **delta: str) -> bytes:
        return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    # Nothing comes before the first words, so that a run that fails before has its status, as without a stream:
    # of what fails in a stream no client knows whether to ask again, or whom else.
    said = False
    async with aclosing(events):
        async for event in events:
            match event:
                case ai.PartStartEvent(part=ai.TextPart(content=text), previous_part_kind=before):
                    if not said:
                        yield chunk(role="assistant", content="")
                    yield chunk(content=f"\n\n{text}" if said and before != "text" else text)
                    said = True
                case ai.PartDeltaEvent(delta=ai.TextPartDelta(content_delta=text)):
                    yield chunk(content=text)
                case AgentRunResultEvent(result=result):
                    if not said:  # but made a record
                        yield chunk(role="assistant", content=answer_of(run.id, result))
                    elif isinstance(result.output, DeferredToolRequests):
                        yield chunk(content=f"\n\n{answer_of(run.id, result)}")
                    yield chunk(_finish_reason(result))
                    if with_usage:
                        yield _data({**head, "choices": [], "usage": _usage(result)})
    yield b"data: [DONE]\n\n"


def _settings(body: ChatRequest) -> dict[str, Any]:
    same = {"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"}
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or ()
    settings = {
        "max_tokens": body.max_completion_tokens or body.max_tokens,
        "stop_sequences": [word for word in stop if word] or None,
    }
    return {k: v for k, v in (body.model_dump(include=same) | settings).items() if v is not None}


def _finish_reason(result: AgentRunResult[Any]) -> str:
    return "length" if result.response.finish_reason == "length" else "stop"


def _usage(result: AgentRunResult[Any]) -> dict[str, int]:
    usage = result.usage
    sent, received = usage.input_tokens, usage.output_tokens
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {encodable(json.dumps(value, ensure_ascii=False))}\n\n".encode()
