"""How much of a conversation the model is sent: whole turns, the newest, as far as its window goes."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.messages import ModelMessage, UserPromptPart


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
