"""The part of a conversation's history that the model is sent."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from chassis.conversations.contents import count_chars


class WindowedModel(WrapperModel):
    """A model that is sent the newest turns only; what is stored stays whole.

    One for all runs. As a capability it would be put together with the agent's for each run anew, which takes a
    millisecond.
    """

    def __init__(
        self,
        wrapped: Model,
        messages: int,
        chars: int,
        fill: Callable[[list[ModelMessage]], Awaitable[list[ModelMessage]]],
    ) -> None:
        """Take the model, how many messages it is sent at most, and how many characters; four are about a token.

        `fill` puts the files into messages that only name them.
        """
        super().__init__(wrapped)
        self._fill = fill
        self._messages = messages
        self._chars = chars

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the model."""
        newest = await self._newest(messages)
        return await self.wrapped.request(newest, model_settings, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask the model, and stream what it says."""
        newest = await self._newest(messages)
        asked = self.wrapped.request_stream(newest, model_settings, model_request_parameters, run_context)
        async with asked as response:
            yield response

    async def _newest(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        return await self._fill(list(_newest_turns(messages, self._messages, self._chars)))


def _newest_turns(history: Sequence[ModelMessage], messages: int, chars: int) -> Sequence[ModelMessage]:
    start: int | None = None
    size = 0
    for index in range(len(history) - 1, -1, -1):
        parts = history[index].parts
        size += sum(count_chars(getattr(part, "content", "") or getattr(part, "args", "")) for part in parts)
        # The turn under way is sent in any case, and the provider may say that it is too long.
        if start is not None and (size > chars or len(history) - index > messages):
            break
        # A result of a tool without its call, or half a turn, would confuse the model.
        if any(isinstance(part, UserPromptPart) for part in parts):
            start = index
    return history[start:]
