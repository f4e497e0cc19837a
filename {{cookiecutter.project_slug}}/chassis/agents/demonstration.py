"""A model that works without a key and without a network, to see the service run. It isn't clever.

It calls a tool where the user's words name what the tool is about: "What time is it?" calls
`current_time`. It says what a tool found, fills a typed record with the user's words, and always says
that it is a demonstration.
"""

import re
from collections.abc import AsyncIterator
from textwrap import shorten
from typing import Any

import anyio
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
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_jsonable_python

NAME = "demonstration"
# An agent that has this tool answers from documents, so every question is one for it.
SEARCH_TOOL = "search_documents"
SECONDS_A_WORD = 0.01


def demonstration_model(variable: str) -> FunctionModel:
    """Make the model; it tells people to set the `variable` for real answers."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[_call(messages, info) or TextPart(_text(messages, variable))])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if call := _call(messages, info):
            yield {0: DeltaToolCall(call.tool_name, call.args_as_json_str(), tool_call_id=call.tool_call_id)}
            return
        for word in re.findall(r"\S+\s*", _text(messages, variable)):
            yield word
            await anyio.sleep(SECONDS_A_WORD)

    return FunctionModel(answer, stream_function=stream, model_name=NAME)


def _call(messages: list[ModelMessage], info: AgentInfo) -> ToolCallPart | None:
    """The tool to call next, if any: one of the agent's once for each question, then that of its output."""
    words = _prompts(messages)[-1]
    if isinstance(messages[-1].parts[-1], UserPromptPart):
        for tool in info.function_tools:
            about = re.escape(tool.name.rpartition("_")[2].removesuffix("s"))
            if tool.name == SEARCH_TOOL or re.search(rf"\b{about}s?\b", words, re.IGNORECASE):
                return ToolCallPart(tool.name, _arguments(tool, words))
    for tool in info.output_tools:
        return ToolCallPart(tool.name, _arguments(tool, f"Demonstration: {words}"))
    return None


def _arguments(tool: ToolDefinition, words: str) -> dict[str, Any]:
    """Arguments that fit the tool's schema, with the words wherever it takes any text."""
    arguments: dict[str, Any] = TestModel().gen_tool_args(tool)
    for name, schema in tool.parameters_json_schema.get("properties", {}).items():
        texts = schema.get("items", {}) if schema.get("type") == "array" else schema
        free = texts.get("type") == "string" and texts.keys().isdisjoint(
            {"enum", "const", "format", "pattern"}
        )
        if free and name in arguments:
            text = words[: texts.get("maxLength")]
            arguments[name] = text if texts is schema else [text]
    return arguments


def _text(messages: list[ModelMessage], variable: str) -> str:
    prompts = _prompts(messages)
    said = f"You said: {_short(prompts[-1])}"
    newest = messages[-1].parts[-1]
    if isinstance(newest, ToolReturnPart):
        said = f"The tool {newest.tool_name} says: {_result(newest)}"
    if len(prompts) > 1:
        said += f"\nBefore that you said: {_short(prompts[-2])}"
    return (
        f"This is a demonstration: no model was asked. {said}\n"
        f"Set {variable} and start the service again to get real answers."
    )


def _result(part: ToolReturnPart) -> str:
    found = to_jsonable_python(part.content)
    if part.tool_name != SEARCH_TOOL or not isinstance(found, list):
        return _short(part.model_response_str())
    return "".join(f"\n- {_short(passage['text'])} ({passage['source']})" for passage in found) or "nothing."


def _prompts(messages: list[ModelMessage]) -> list[str]:
    """What the user said, without pictures and the like."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    said = [part.content for part in parts if isinstance(part, UserPromptPart)]
    return [
        text if isinstance(text, str) else " ".join(item for item in text if isinstance(item, str))
        for text in said
    ] or [""]


def _short(text: str) -> str:
    return shorten(text, 300, placeholder=" …")
