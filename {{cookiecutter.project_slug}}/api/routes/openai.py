"""`/v1/chat/completions` and `/v1/models`: the agents as models of OpenAI's API, for clients that speak it.

The client keeps the history and sends all of it each time, so nothing that is said is stored. Tools are
the agent's own: it calls them on the way, and the client gets the answer.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_ai import AgentRunResult, AgentRunResultEvent
from pydantic_ai import messages as ai
from pydantic_ai.ui import NativeEvent
from pydantic_core import to_jsonable_python

from agents.failures import RunError
from agents.registry import AGENTS
from agents.runs import StartedRun
from agents.store import encodable
from api import problems
from api.auth import CallerOf
from api.services import ServicesOf
from api.streaming import EVENTS, EventStream, unless_disconnected


class OpenAIRoute(APIRoute):
    """A route whose problems also have the member `error`, which is where OpenAI's clients look."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler, which checks the key and the body too."""
        handle = super().get_route_handler()

        async def with_error(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                answer = problems.respond(request, error)
                at = error.errors()[0]["loc"][1:] if isinstance(error, RequestValidationError) else ()
                document = json.loads(bytes(answer.body))
                document |= _error(answer.status_code, document.get("detail"), ".".join(map(str, at)))
                del answer.headers["content-length"]
                return problems.ProblemResponse(document, answer.status_code, answer.headers)

        return with_error


router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute)


def _error(status: int, detail: str | None, param: str = "") -> dict[str, Any]:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    code = HTTPStatus(status).name.lower()
    return {"error": {"message": detail, "type": kind, "param": param or None, "code": code}}


def _refuse(value: Any) -> None:
    if value is not None:
        raise ValueError("not supported, leave it out: the agent has its own tools and form of output")


Refused = Annotated[None, BeforeValidator(_refuse)]


class TextContent(BaseModel):
    """A part of a message: only text is taken."""

    type: Literal["text"]
    text: str


class FunctionCall(BaseModel):
    """Which function, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call of a tool."""

    id: str
    function: FunctionCall


class Message(BaseModel):
    """Something said, called or returned. A system message adds to the agent's own instructions."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextContent] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(x.text for x in self.content or ())


class ChatRequest(BaseModel):
    """The conversation so far, up to what the user says now. Members that aren't listed are ignored."""

    model: str = Field(description="the id of an agent")
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    tools: Refused = None
    response_format: Refused = None


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
async def list_models(caller: CallerOf) -> ModelList:
    """List the agents that the key may run."""
    return ModelList(data=[ModelView(id=name) for name in AGENTS if caller.may_run(name)])


@router.get("/models/{model}")
async def read_model(model: str, caller: CallerOf) -> ModelView:
    """Tell whether there is an agent with this id."""
    if model not in AGENTS or not caller.may_run(model):
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no agent {model!r}. GET /v1/models lists them.")
    return ModelView(id=model)


@router.post("/chat/completions", response_model=ChatCompletion, responses=EVENTS)
async def complete_chat(
    body: ChatRequest, request: Request, caller: CallerOf, services: ServicesOf
) -> Response | dict[str, Any]:
    """Run an agent on the messages. With `stream` the answer comes as server-sent events."""
    *earlier, last = body.messages
    if last.role != "user":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The last of the messages must be the user's.")
    runner = services.runner
    run = await runner.start(body.model, caller, last.text, history=_history(earlier))
    events = runner.track(run, _native(run, runner.options(run) | {"model_settings": _settings(body)}))
    head = {"id": f"chatcmpl-{run.id}", "created": int(time.time()), "model": body.model}
    if not body.stream:
        return await unless_disconnected(request, _whole(events, head), run.token.cancel)
    with_usage = bool((body.stream_options or {}).get("include_usage"))
    return EventStream(
        _chunks(events, {**head, "object": "chat.completion.chunk"}, with_usage),
        ping_seconds=services.settings.ping_seconds,
        on_disconnect=run.token.cancel,
    )


async def _native(run: StartedRun, options: dict[str, Any]) -> AsyncGenerator[NativeEvent]:
    async with run.agent.run_stream_events(run.prompt, conversation=run.conversation, **options) as events:
        async for event in events:
            yield event


async def _whole(events: AsyncGenerator[NativeEvent], head: dict[str, Any]) -> dict[str, Any]:
    async for event in events:
        if isinstance(event, AgentRunResultEvent):
            message = {"role": "assistant", "content": _content(event.result)}
            choice = {"index": 0, "message": message, "finish_reason": _finish_reason(event.result)}
            usage = _usage(event.result)
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


async def _chunks(
    events: AsyncGenerator[NativeEvent], head: dict[str, Any], with_usage: bool
) -> AsyncGenerator[bytes]:
    def chunk(finish: str | None = None, **delta: str) -> bytes:
        return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    said = False
    yield chunk(role="assistant", content="")
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case ai.PartStartEvent(part=ai.TextPart(content=text), previous_part_kind=before):
                        yield chunk(content=f"\n\n{text}" if said and before != "text" else text)
                        said = True
                    case ai.PartDeltaEvent(delta=ai.TextPartDelta(content_delta=text)):
                        yield chunk(content=text)
                    case AgentRunResultEvent(result=result):
                        if not said:  # but made a record
                            yield chunk(content=_content(result))
                        yield chunk(_finish_reason(result))
                        if with_usage:
                            yield _data({**head, "choices": [], "usage": _usage(result)})
        yield b"data: [DONE]\n\n"
    except RunError as failure:
        yield _data(_error(failure.status, failure.detail))


def _history(messages: Sequence[Message]) -> list[ai.ModelMessage]:
    history: list[ai.ModelMessage] = []
    names: dict[str | None, str] = {}
    for message in messages:
        match message.role:
            case "user":
                history.append(ai.ModelRequest([ai.UserPromptPart(message.text)]))
            case "assistant":
                names |= {call.id: call.function.name for call in message.tool_calls or ()}
                calls = [
                    ai.ToolCallPart(call.function.name, call.function.arguments, call.id)
                    for call in message.tool_calls or ()
                ]
                history.append(ai.ModelResponse([ai.TextPart(message.text), *calls]))
            case "tool":
                if (call_id := message.tool_call_id) not in names:
                    raise HTTPException(
                        HTTPStatus.BAD_REQUEST, f"No message before it calls a tool as {call_id!r}."
                    )
                history.append(
                    ai.ModelRequest([ai.ToolReturnPart(names[call_id], message.text, call_id or "")])
                )
            case _:
                history.append(ai.ModelRequest([ai.SystemPromptPart(message.text)]))
    return history


def _settings(body: ChatRequest) -> dict[str, Any]:
    same = {"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"}
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    settings = {"max_tokens": body.max_completion_tokens or body.max_tokens, "stop_sequences": stop}
    return {k: v for k, v in (body.model_dump(include=same) | settings).items() if v is not None}


def _content(result: AgentRunResult[Any]) -> str:
    plain = to_jsonable_python(result.output)
    return encodable(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))


def _finish_reason(result: AgentRunResult[Any]) -> str:
    return "length" if result.response.finish_reason == "length" else "stop"


def _usage(result: AgentRunResult[Any]) -> dict[str, int]:
    usage = result.usage
    sent, received = usage.input_tokens, usage.output_tokens
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {encodable(json.dumps(value, ensure_ascii=False))}\n\n".encode()
