"""A model that works without a key and without a network, to see the service run. It isn't clever.

It tells the time with the agent's own tool when asked for it, and otherwise says what it was told.
"""

import re
from collections.abc import AsyncIterator

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

TIME_TOOL = "current_time"


def demonstration_model(variable: str) -> FunctionModel:
    """Make the model; it tells people to set the `variable` for real answers."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if _wants_time(messages, info):
            return ModelResponse(parts=[ToolCallPart(TIME_TOOL, {})])
        return ModelResponse(parts=[TextPart(_text(messages, variable))])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if _wants_time(messages, info):
            yield {0: DeltaToolCall(TIME_TOOL, "{}", tool_call_id="demonstration")}
            return
        for word in re.findall(r"\S+\s*", _text(messages, variable)):
            yield word

    return FunctionModel(answer, stream_function=stream, model_name="demonstration")


def _wants_time(messages: list[ModelMessage], info: AgentInfo) -> bool:
    newest = messages[-1].parts[-1]
    return (
        isinstance(newest, UserPromptPart)
        and re.search(r"\btime\b", str(newest.content), re.IGNORECASE) is not None
        and any(tool.name == TIME_TOOL for tool in info.function_tools)
    )


def _text(messages: list[ModelMessage], variable: str) -> str:
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    said = [str(part.content) for part in parts if isinstance(part, UserPromptPart)]
    words = f"You said: {said[-1]}"
    if isinstance(parts[-1], ToolReturnPart):
        words = f"The tool {parts[-1].tool_name} says: {parts[-1].content}"
    if len(said) > 1:
        words += f"\nBefore that you said: {said[-2]}"
    return (
        f"This is a demonstration: no model was asked. {words}\n"
        f"Set {variable} and start the service again to get real answers."
    )
