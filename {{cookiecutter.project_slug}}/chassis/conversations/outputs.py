"""A typed output, kept beside the message that brought it.

What the model wrote is not what the run answered with: defaults are filled in and values are converted, and
JSONB sorts the fields. So the output itself is kept, as text, where nothing is sent to a model from.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import uuid4

from pydantic_ai import AgentRunResult
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolReturnPart

OUTPUT = "output"


class Output(NamedTuple):
    """The output of a run, and the call of a tool that it was made of; without one it was made of text."""

    json: str
    tool_call_id: str | None


def keep_output(
    result: AgentRunResult[Any], output: Any, earlier: Sequence[ModelMessage] = ()
) -> list[ModelMessage]:
    """Return the messages of a run, and those before, with its output if that is more than the text of the last answer."""
    messages = [*earlier, *result.new_messages()]
    # Only the results of tools, that of the output among them, can come after the last answer.
    is_called = bool(messages) and not isinstance(messages[-1], ModelResponse)
    if isinstance(output, str) and not is_called:
        return messages
    at = max((at for at, message in enumerate(messages) if isinstance(message, ModelResponse)), default=None)
    if at is None:
        return messages
    kept = {"json": json.dumps(output), "tool_call_id": _call_of_output(result) if is_called else None}
    answer = messages[at]
    messages[at] = replace(answer, metadata={**(answer.metadata or {}), OUTPUT: kept})
    return messages


def _call_of_output(result: AgentRunResult[Any]) -> str | None:
    mark = uuid4().hex
    with suppress(ValueError, LookupError):
        for message in reversed(result.new_messages(output_tool_return_content=mark)):
            for part in message.parts:
                if isinstance(part, ToolReturnPart) and part.content == mark:
                    return part.tool_call_id
    return None


def output_of(message: ModelMessage) -> Output | None:
    """Return the output that the message brought, if it is a typed one."""
    kept = (message.metadata or {}).get(OUTPUT) if isinstance(message, ModelResponse) else None
    return Output(**kept) if kept else None
