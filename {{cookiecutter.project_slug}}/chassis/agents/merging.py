"""What has arrived of a model's answer meanwhile is handled as one.

A provider sends each few letters as an event of their own, and each costs the client, pydantic-ai and the way to the
caller ten times what it takes off the network. A process that keeps up gets them one by one. One that is behind finds
several waiting, and makes one event of those that only add text to the same place: nothing waits for a merge, and
under load an answer costs less, not more.

The forms of OpenAI's two APIs and of Anthropic's are known; events of any other form are passed on as they are.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from httpx2 import AsyncByteStream, AsyncClient, Response
from pydantic_ai.models import create_async_httpx2_client
from pydantic_ai.providers import Provider, infer_provider_class

# So much is read ahead of a consumer at most, in bytes: then the provider waits.
AHEAD = 64 << 10
END = b"\n\n"
DATA = b"data: "


# The providers whose clients take one of ours.
TAKES_CLIENT = frozenset({"anthropic", "openai", "openai-chat", "openai-responses"})


def merging_provider(name: str) -> Provider[Any]:
    """Make one of these providers, as pydantic-ai does, with a client that merges what it streams."""
    make: Callable[..., Provider[Any]] = infer_provider_class(name)
    return make(http_client=merging_client())


def merging_client() -> AsyncClient:
    """Make a client as the providers' own, which merges the events of an answer."""
    client = create_async_httpx2_client()
    client.event_hooks = {**client.event_hooks, "response": [_merge_response]}
    return client


async def _merge_response(response: Response) -> None:
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    streamed = response.headers.get("Content-Type", "").startswith("text/event-stream")
    if plain and streamed and isinstance(response.stream, AsyncByteStream):
        response.stream = Merged(response.stream)


class Merged(AsyncByteStream):
    """A stream of events, of which those that wait are merged.

    To iterate once more goes on with what the first iteration has left: openai's client does so after the last event,
    to free the connection, while its first iteration is still underway.
    """

    def __init__(self, stream: AsyncByteStream) -> None:
        """Take the stream as it comes off the network."""
        self._stream = stream
        self._waiting = bytearray()
        self._arrived, self._taken = asyncio.Event(), asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._iteration = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield whole events, as many as there are."""
        self._iteration = mine = self._iteration + 1
        waiting = self._waiting
        reader = self._reader = self._reader or asyncio.create_task(self._read())
        try:
            while True:
                if not reader.done():
                    await self._arrived.wait()
                self._arrived.clear()
                ended = reader.done()
                # What isn't whole yet follows. Lines that end otherwise, and an event larger than all that is read
                # ahead, are passed on as they are.
                whole = waiting.rfind(END) + len(END)
                if ended or b"\r" in waiting or (whole < len(END) and len(waiting) > AHEAD):
                    whole = len(waiting)
                if whole >= len(END):
                    events = bytes(waiting[:whole])
                    del waiting[:whole]
                    self._taken.set()
                    yield merge(events)
                if ended:
                    break
            await reader
        finally:
            if mine == self._iteration:
                await self._stop()

    async def _read(self) -> None:
        try:
            async for piece in self._stream:
                self._waiting.extend(piece)
                self._arrived.set()
                while len(self._waiting) > AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            self._arrived.set()

    async def _stop(self) -> None:
        if self._reader:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def aclose(self) -> None:
        """Close it."""
        with suppress(Exception):  # whoever iterates is told
            await self._stop()
        await self._stream.aclose()


class Addition(NamedTuple):
    """An event that adds text: to which place, and where the text is in its document."""

    place: tuple[Any, ...]
    head: bytes
    document: dict[str, Any]
    holder: dict[str, Any]
    key: str

    @property
    def block(self) -> bytes:
        """The event as it is sent."""
        data = json.dumps(self.document, ensure_ascii=False, separators=(",", ":"))
        return self.head + DATA + data.encode(errors="surrogatepass")


def merge(events: bytes) -> bytes:
    """Return the events with neighbours made one that only add text to the same place."""
    *blocks, rest = events.split(END)
    if len(blocks) < 2:
        return events
    merged: list[bytes | Addition] = []
    last: Addition | None = None
    for block in blocks:
        addition = _read(block)
        if addition and last and addition.place == last.place:
            addition.holder[addition.key] = last.holder[last.key] + addition.holder[addition.key]
            merged[-1] = addition
        else:
            # One that stays alone is sent as it came.
            merged.append(block)
        last = addition
    return END.join([*(block if isinstance(block, bytes) else block.block for block in merged), rest])


def _read(block: bytes) -> Addition | None:
    head, mark, data = block.partition(DATA)
    # A comment or an id is nobody's to merge, and data of several lines have a form that isn't known.
    if not mark or b"\n" in data or (head and not re.fullmatch(rb"event: [\w.]+\n", head)):
        return None
    try:
        document = json.loads(data)
        found = _find_text(document)
    except OTHER_FORM:
        return None
    if found is None or not isinstance(found[1].get(found[2]), str):
        return None
    place, holder, key = found
    return Addition(place, head, document, holder, key)


def _find_text(document: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], str] | None:
    """Return the place that the document adds to, and what holds the text by which key."""
    if document.get("object") == "chat.completion.chunk":
        # https://platform.openai.com/docs/api-reference/chat-streaming
        [choice] = document["choices"]
        told = [key for key, value in choice["delta"].items() if value not in (None, "")]
        if told == ["content"] and not (
            choice.get("finish_reason") or choice.get("logprobs") or document.get("usage")
        ):
            return ("chat", document.get("id"), choice.get("index")), choice["delta"], "content"
    kind = document.get("type")
    if kind in RESPONSES and not document.get("logprobs"):
        # https://platform.openai.com/docs/api-reference/responses-streaming
        where = (document.get(name) for name in ("item_id", "output_index", "content_index", "summary_index"))
        return (kind, *where), document, "delta"
    if kind == "content_block_delta" and (key := ANTHROPIC.get(document["delta"]["type"])):
        # https://docs.anthropic.com/en/docs/build-with-claude/streaming
        return (kind, document["index"], key), document["delta"], key
    return None


RESPONSES = frozenset(
    f"response.{name}.delta"
    for name in (
        "output_text",
        "refusal",
        "reasoning_text",
        "reasoning_summary_text",
        "function_call_arguments",
    )
)
# What reading a document of another form raises.
OTHER_FORM = (ValueError, KeyError, TypeError, AttributeError, IndexError)
ANTHROPIC = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
