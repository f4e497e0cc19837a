"""What is said to an agent in the words of OpenAI's API, and what the agent says."""

import json
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import HTTPException
from pydantic import AfterValidator, BaseModel, PrivateAttr
from pydantic_ai import AgentRunResult, DeferredToolRequests
from pydantic_ai import messages as ai
from pydantic_ai.ui import NativeEvent
from pydantic_core import to_jsonable_python

from chassis.database.jsonb import encodable
from chassis.runs.approval import calls_of, words_for
from chassis.runs.started import StartedRun

TEXTS = frozenset({"text", "input_text", "output_text", "refusal"})
FILES = frozenset({"image_url", "file", "input_image", "input_file"})
THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
# For a conversation whose last message is the assistant's: "Continue" in Open WebUI.
CONTINUE = "Continue your last message from exactly where it ends. Repeat nothing of it."


# 0 and -1 are what some clients call "no limit".
Limit = Annotated[int | None, AfterValidator(lambda value: value if value and value > 0 else None)]


class Sent(BaseModel):
    """A file as OpenAI's clients send it: its data, or the id of one that was uploaded."""

    image_url: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Part(BaseModel):
    """A part of a message. Of what the user says now only texts and files are taken."""

    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | dict[str, Any] | None = None
    file: dict[str, Any] | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    # What it shows, once it was looked at.
    _shown: ai.UserContent | None = PrivateAttr(None)

    @property
    def sent(self) -> Sent:
        """The file, as it was sent."""
        told = self.file or self.model_dump(include={"file_data", "file_id", "file_url", "filename"})
        picture = self.image_url.get("url") if isinstance(self.image_url, dict) else self.image_url
        return Sent.model_validate({**told, "image_url": picture})

    @property
    def words(self) -> str:
        """What the model is told of it, which never sees what it has thought before."""
        if self.type in THOUGHTS:
            return ""
        return f"[{self.type}, which was left out]" if self.is_foreign else self.text or self.refusal

    @property
    def file_shown(self) -> ai.UserContent | None:
        """The file, once it was looked at and taken."""
        return self._shown

    def show(self, content: ai.UserContent) -> None:
        """Note what it shows."""
        self._shown = content

    @property
    def is_foreign(self) -> bool:
        """Tell whether it is no text, but a picture, say."""
        return self.type not in TEXTS | THOUGHTS and self._shown is None


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
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.words for part in self.content or ()) or self.refusal or ""

    @property
    def shown(self) -> str | list[ai.UserContent]:
        """The content with the files in it."""
        parts = self.content if isinstance(self.content, list) else []
        if all(part.file_shown is None for part in parts):
            return self.text
        return [item for part in parts if (item := part.file_shown or part.words)]


def history_of(messages: Sequence[Message]) -> list[ai.ModelMessage]:
    """Return the messages as pydantic-ai's.

    Raises:
        HTTPException: for the result of a tool that none of them calls.
    """
    history: list[ai.ModelMessage] = []
    names: dict[str | None, str] = {}
    # Those that have no result yet: a second result of one call would be refused by every provider.
    waiting: set[str | None] = set()
    for message in messages:
        match message.role:
            case "user":
                history.append(ai.ModelRequest([ai.UserPromptPart(message.shown)]))
            case "assistant":
                calls = {call.id: call.function for call in message.tool_calls or ()}
                waiting = set(calls)
                names |= {call_id: function.name for call_id, function in calls.items()}
                called = [
                    ai.ToolCallPart(call.name, call.arguments, call_id) for call_id, call in calls.items()
                ]
                history.append(ai.ModelResponse([ai.TextPart(message.text), *called]))
            case "tool":
                if (call_id := message.tool_call_id) not in names:
                    raise HTTPException(
                        HTTPStatus.BAD_REQUEST, f"No message before it calls a tool as {call_id!r}."
                    )
                if call_id in waiting:
                    waiting.remove(call_id)
                    history.append(
                        ai.ModelRequest([ai.ToolReturnPart(names[call_id], message.text, call_id or "")])
                    )
            case _:
                history.append(ai.ModelRequest([ai.SystemPromptPart(message.text)]))
    return history


async def run_events(
    run: StartedRun, prompt: str | Sequence[ai.UserContent] | None, options: dict[str, Any]
) -> AsyncGenerator[NativeEvent]:
    """Run the agent, and yield what happens."""
    async with run.agent.run_stream_events(prompt, conversation=run.conversation, **options) as events:
        async for event in events:
            yield event


def answer_of(run_id: UUID, result: AgentRunResult[Any]) -> str:
    """Return what a run has answered: its output, or what it needs a person's approval for."""
    if isinstance(result.output, DeferredToolRequests) and (calls := calls_of(result.output)):
        return encodable(words_for(run_id, calls))
    return text_of(result.output)


def text_of(output: Any) -> str:
    """Return the output of an agent as a text, a record as JSON."""
    plain = to_jsonable_python(output)
    return encodable(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))
