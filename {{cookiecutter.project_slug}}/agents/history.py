"""What a run does around each request to the model: it cuts the history to size, and notes what is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, ProcessHistory
from pydantic_ai.messages import ModelMessage, UserPromptPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.usage import RunUsage


@dataclass
class Meter(AbstractCapability[Any]):
    """Holds on to the usage of a run, which has no result to ask for it if it fails."""

    _usage: RunUsage | None = None

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Take note of the usage, to which the run goes on adding."""
        self._usage = ctx.usage
        return request_context

    def usage_since(self, before: RunUsage) -> RunUsage:
        """Return what was used so far, beyond what the conversation had before."""
        return RunUsage() if self._usage is None else self._usage - before


def history_window(messages: int, chars: int) -> ProcessHistory[Any]:
    """Make the capability that leaves out older turns; what is stored stays whole.

    Args:
        messages: how many messages are sent at most.
        chars: how many characters; four are about a token.
    """

    def newest_turns(history: list[ModelMessage]) -> list[ModelMessage]:
        return list(_newest_turns(history, messages, chars))

    return ProcessHistory(newest_turns)


def _newest_turns(history: Sequence[ModelMessage], messages: int, chars: int) -> Sequence[ModelMessage]:
    start: int | None = None
    size = 0
    for index in range(len(history) - 1, -1, -1):
        parts = history[index].parts
        size += sum(len(str(getattr(part, "content", "") or getattr(part, "args", ""))) for part in parts)
        # The turn under way is sent in any case, and the provider may say that it is too long.
        if start is not None and (size > chars or len(history) - index > messages):
            break
        # A result of a tool without its call, or half a turn, would confuse the model.
        if any(isinstance(part, UserPromptPart) for part in parts):
            start = index
    return history[start:]
