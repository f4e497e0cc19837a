"""A response of OpenAI's Responses API: the object, and the events that tell of it as it grows.

https://platform.openai.com/docs/api-reference/responses/object
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel
from pydantic_ai import AgentRunResult, AgentRunResultEvent, DeferredToolRequests
from pydantic_ai import messages as ai
from pydantic_ai.ui import NativeEvent
from pydantic_ai.usage import RunUsage

from chassis.conversations.store import USAGE
from chassis.database.jsonb import encodable, restored
from chassis.errors import RunError
from chassis.protocols.openai_messages import answer_of, text_of
from chassis.runs.approval import words_for
from chassis.runs.started import StartedRun
from chassis.runs.tables import Run, RunStatus
from chassis.runs.usage import usage_of

Status = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]

STATUSES: dict[RunStatus, Status] = {
    RunStatus.RUNNING: "in_progress",
    RunStatus.SUCCEEDED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.INTERRUPTED: "failed",
    RunStatus.WAITING: "completed",
    RunStatus.CONTINUED: "completed",
}
RESPONSE, MESSAGE = "resp_", "msg_"


class ResponseView(BaseModel):
    """A response. Its id ends with the run's; its usage is that of all requests to the agent's model."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    model: str
    output: list[dict[str, Any]] = []
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: dict[str, str] | None = None
    metadata: dict[str, str] = {}
    store: bool = True
    background: bool = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    # What clients find in every response. An agent's tools are its own, so here are none.
    parallel_tool_calls: bool = True
    tool_choice: str = "auto"
    tools: list[dict[str, Any]] = []
    text: dict[str, Any] = {"format": {"type": "text"}}
    truncation: str = "disabled"

    def with_text(self, text: str, status: Status) -> Self:
        """Return the response with what the agent has said, and how far it has come with it."""
        state = "in_progress" if status == "in_progress" else "incomplete"
        item = {
            "id": self.id.replace(RESPONSE, MESSAGE, 1),
            "type": "message",
            "role": "assistant",
            "status": "completed" if status == "completed" else state,
            "content": [_part(text)],
        }
        return self.model_copy(update={"status": status, "output": [item]})

    def ended(self, run: StartedRun, result: AgentRunResult[Any], text: str | None = None) -> Self:
        """Return the response as the run ended that ended well; `text` is what was said, if that isn't the output."""
        cut_off = is_cut_off(result.response)
        view = self.with_text(
            answer_of(run.id, result) if text is None else text, "incomplete" if cut_off else "completed"
        )
        view.incomplete_details = {"reason": "max_output_tokens"} if cut_off else None
        view.completed_at = None if cut_off else int(time.time())
        view.usage = _usage(usage_of(result, run.conversation.usage))
        return view

    def failed(self, run: StartedRun, failure: RunError, text: str) -> Self:
        """Return the response of a run that failed, or was stopped, with what it had said."""
        view = self.with_text(text, "cancelled" if run.unfinished.wanted else "failed")
        view.error = _error(failure.detail, failure.status, failure.code)
        return view


def view_of(row: Run, last: ai.ModelMessage | None = None) -> ResponseView:
    """Return the response of a run that is kept.

    Args:
        row: the run.
        last: the last message that it has left in its conversation.
    """
    view = ResponseView(
        id=f"{RESPONSE}{row.id.hex}",
        created_at=int(row.started_at.timestamp()),
        status=STATUSES[row.status],
        model=row.agent_id,
        conversation={"id": str(row.conversation_id)},
        usage=None if row.status is RunStatus.RUNNING else _usage(USAGE.validate_python(row.usage)),
    )
    if row.status is RunStatus.SUCCEEDED:
        cut_off = last is not None and is_cut_off(last)
        view = view.with_text(text_of(restored(row.output)), "incomplete" if cut_off else "completed")
        view.incomplete_details = {"reason": "max_output_tokens"} if cut_off else None
        view.completed_at = int(row.finished_at.timestamp()) if row.finished_at and not cut_off else None
    elif view.status == "completed":
        view = view.with_text(words_for(row.id, restored(row.calls) or ()), "completed")
        view.completed_at = int(row.finished_at.timestamp()) if row.finished_at else None
    elif view.status == "failed":
        view.error = _error(row.error or "The run failed.")
    return view


def is_cut_off(message: ai.ModelMessage) -> bool:
    """Tell whether it is an answer for which there were too few tokens."""
    return isinstance(message, ai.ModelResponse) and message.finish_reason == "length"


def run_id_of(response_id: str) -> UUID | None:
    """Return the id of the run that a response, or its message, is of, if that may be one."""
    for prefix in (RESPONSE, MESSAGE):
        if response_id.startswith(prefix):
            try:
                return UUID(response_id.removeprefix(prefix))
            except ValueError:
                return None
    return None


class Events:
    """The events of one response, in their order, numbered from 0."""

    def __init__(self, view: ResponseView) -> None:
        """Start with the response as it was created."""
        self.view = view
        self.text = ""
        self.begun = False
        self._number = 0
        self._place = {"item_id": view.id.replace(RESPONSE, MESSAGE, 1), "output_index": 0}

    def say(self, text: str) -> Iterator[bytes]:
        """Tell what the agent says next, and before its first words all that comes before them."""
        if not self.begun:
            self.begun = True
            yield self._event("response.created", response=self.view.model_dump())
            yield self._event("response.in_progress", response=self.view.model_dump())
            item = self.view.with_text("", "in_progress").output[0] | {"content": []}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._event("response.content_part.added", **self._place, content_index=0, part=_part(""))
        if text:
            self.text += text
            yield self._event(
                "response.output_text.delta", **self._place, content_index=0, delta=text, logprobs=[]
            )

    def end(self, view: ResponseView) -> Iterator[bytes]:
        """Tell that the response is complete, or as complete as it gets."""
        [item] = view.output
        place = {**self._place, "content_index": 0}
        yield self._event("response.output_text.done", **place, text=self.text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_part(self.text))
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{view.status}", response=view.model_dump())

    def fail(self, view: ResponseView) -> bytes:
        """Tell that it failed, or was stopped."""
        return self._event("response.failed", response=view.model_dump())

    def _event(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return f"event: {kind}\ndata: {encodable(json.dumps(data, ensure_ascii=False))}\n\n".encode()


async def stream(
    run: StartedRun, events: AsyncGenerator[NativeEvent], view: ResponseView
) -> AsyncGenerator[bytes]:
    """Yield the events of the response that a run gives.

    Nothing comes before the first words, so that a run that fails before has its status, as without a stream.

    Raises:
        RunError: if the run fails before.
    """
    told = Events(view)
    speaks = _answers_in_words(run.agent.output_type)
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case ai.PartStartEvent(part=ai.TextPart(content=text), previous_part_kind=before) if (
                        text and speaks
                    ):
                        for chunk in told.say(f"\n\n{text}" if told.text and before != "text" else text):
                            yield chunk
                    case ai.PartDeltaEvent(delta=ai.TextPartDelta(content_delta=text)) if text and speaks:
                        for chunk in told.say(text):
                            yield chunk
                    case AgentRunResultEvent(result=result):
                        for chunk in _ending(told, run, result):
                            yield chunk
    except RunError as failure:
        if not told.begun:
            raise
        yield told.fail(view.failed(run, failure, told.text))


def _answers_in_words(output_type: Any) -> bool:
    """Tell whether what an agent says is its answer: of a record none of it is, nor in the form that clients get."""
    return output_type is str or (isinstance(output_type, (list, tuple)) and str in output_type)


def _ending(told: Events, run: StartedRun, result: AgentRunResult[Any]) -> Iterator[bytes]:
    # A record comes by the call of a tool, where it isn't the text itself, and so does a wish for approval.
    asks = isinstance(result.output, DeferredToolRequests)
    if asks or not told.text or not isinstance(result.all_messages()[-1], ai.ModelResponse):
        yield from told.say(("\n\n" if told.text else "") + answer_of(run.id, result))
    yield from told.end(told.view.ended(run, result, told.text))


async def replay(view: ResponseView) -> AsyncGenerator[bytes]:
    """Yield the events of a response that is there already."""
    told = Events(view.model_copy(update={"status": "in_progress", "output": [], "usage": None}))
    for chunk in told.say(view.output[0]["content"][0]["text"]):
        yield chunk
    for chunk in told.end(view):
        yield chunk


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _error(detail: str, status: HTTPStatus | None = None, code: str | None = None) -> dict[str, Any]:
    # There are few words for it, and these are the only ones of them that fit a run.
    if code != "rate_limit_exceeded":
        code = "invalid_prompt" if status == HTTPStatus.BAD_REQUEST else "server_error"
    return {"code": code, "message": detail}


def _usage(usage: RunUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.output_reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
