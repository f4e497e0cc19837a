"""The service with a model that does what the user's words say, for what a demonstration can't show."""

import asyncio
from collections.abc import AsyncIterator

from pydantic_ai import exceptions
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from api import streaming
from api.main import create_app
from tests.conftest import SECRET

ERRORS: dict[str, Exception] = {
    "timeout": exceptions.ModelTimeoutError("model", SECRET),
    "rate": exceptions.ModelRateLimitError("model", SECRET, retry_after=6.5),
    "quota": exceptions.ModelQuotaExceededError("model", SECRET),
    "key": exceptions.ModelAuthenticationError("model", SECRET),
    "unreachable": exceptions.ModelConnectionError("model", SECRET),
    "http": exceptions.ModelHTTPError(418, "model", {"error": SECRET}),
    "nonsense": exceptions.UnexpectedModelBehavior(SECRET),
    "bug": ZeroDivisionError(SECRET),
}


def loops(messages: list[ModelMessage]) -> bool:
    """Whether the user wants an agent that calls its tool for ever."""
    prompts = [
        part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)
    ]
    return prompts[-1] == "loop"


async def obey(messages: list[ModelMessage]) -> str:
    prompts = [
        part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)
    ]
    verb, _, rest = str(prompts[-1]).partition(" ")
    if verb == "sleep":
        await asyncio.sleep(float(rest))
    if verb == "fail":
        raise ERRORS[rest]
    if verb == "half":
        return "x\ud83dy"
    return f"Heard {len(prompts)}: {prompts[-1]}"


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    part = ToolCallPart("current_time", {}) if loops(messages) else TextPart(await obey(messages))
    return ModelResponse(parts=[part])


async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    if loops(messages):
        yield {0: DeltaToolCall("current_time", "{}")}
        return
    yield "Well. "
    yield await obey(messages)


streaming.PING_SECONDS = 0.1
app = create_app(model=FunctionModel(answer, stream_function=stream, model_name="scripted"))
