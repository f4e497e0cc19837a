"""Events of a model's answer that wait are merged, and nothing of them is lost, changed or held back."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from httpx2 import AsyncByteStream

from chassis.agents.merging import AHEAD, Merged, merge, merging_client

pytestmark = pytest.mark.anyio


def chat(text: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {
        "index": 0,
        "delta": delta | more.pop("delta", {}),
        "finish_reason": more.pop("finish_reason", None),
    }
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more}


def response(text: str, number: int, item: str = "m1", kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "item_id": item, "output_index": 0, "content_index": 0, "delta": text,
            "sequence_number": number, "logprobs": []}  # fmt: skip


def block(text: str, kind: str = "text_delta", index: int = 0) -> dict[str, Any]:
    key = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}.get(
        kind, "other"
    )
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: text}}


def stream(*events: Any) -> bytes:
    texts = [event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events]
    return "".join(f"{text}\n\n" for text in texts).encode()


def named(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}"


MERGED: dict[str, tuple[list[Any], list[Any]]] = {
    "chat": ([chat("a"), chat("ä\n\n"), chat('"c"'), chat()], [chat('aä\n\n"c"'), chat()]),
    "the role comes first": (
        [chat("", delta={"role": "assistant"}), chat("a", delta={"role": "assistant"}), chat("b"), chat("c")],
        [chat("", delta={"role": "assistant"}), chat("a", delta={"role": "assistant"}), chat("bc")],
    ),
    "the end stays": (
        [chat("a"), chat("b", finish_reason="length"), chat("c", usage={"total_tokens": 1}), "data: [DONE]"],
        [chat("a"), chat("b", finish_reason="length"), chat("c", usage={"total_tokens": 1}), "data: [DONE]"],
    ),
    "tool calls stay": (
        [chat("a"), chat(delta={"tool_calls": [{"index": 0}]}), chat("b"), chat("c", delta={"reasoning": "x"})],
        [chat("a"), chat(delta={"tool_calls": [{"index": 0}]}), chat("b"), chat("c", delta={"reasoning": "x"})],
    ),
    "two answers": ([chat("a"), chat("b", id="c2"), chat("c", id="c2")], [chat("a"), chat("bc", id="c2")]),
    "responses": (
        [named(response("a", 1)), named(response("b", 2)), named(response("c", 3, "m2"))],
        [named(response("ab", 2)), named(response("c", 3, "m2"))],
    ),
    "arguments of a call": (
        [named(response('{"a', 1, kind="function_call_arguments")), named(response('": 1}', 2, kind="function_call_arguments"))],
        [named(response('{"a": 1}', 2, kind="function_call_arguments"))],
    ),
    "blocks": (
        [block("a"), block("b"), block("c", index=1), block("d", "thinking_delta", 1), block("e", "signature_delta", 1),
         block("{", "input_json_delta", 2), block("}", "input_json_delta", 2)],
        [block("ab"), block("c", index=1), block("d", "thinking_delta", 1), block("e", "signature_delta", 1),
         block("{}", "input_json_delta", 2)],
    ),
    "comments and ids stay": (
        [chat("a"), ": ping", chat("b"), f"id: 7\ndata: {json.dumps(chat('c'))}", chat("d")],
        [chat("a"), ": ping", chat("b"), f"id: 7\ndata: {json.dumps(chat('c'))}", chat("d")],
    ),
    "other forms stay": (
        ["data: no json", "data: []", 'data: {"choices": 1, "object": "chat.completion.chunk"}', "data: 7", "data: null"],
        ["data: no json", "data: []", 'data: {"choices": 1, "object": "chat.completion.chunk"}', "data: 7", "data: null"],
    ),
}  # fmt: skip


def parsed(events: bytes) -> list[Any]:
    found: list[Any] = []
    for text in events.decode().split("\n\n"):
        head, mark, data = text.partition("data: ")
        try:
            found.append((head, json.loads(data)) if mark else text)
        except ValueError:
            found.append(text)
    return found


@pytest.mark.parametrize(("arrived", "wanted"), MERGED.values(), ids=MERGED)
def test_what_adds_to_the_same_place_is_one(arrived: list[Any], wanted: list[Any]) -> None:
    assert parsed(merge(stream(*arrived))) == parsed(stream(*wanted))


def test_one_that_is_alone_is_not_touched() -> None:
    odd = b'data:  {"object":"chat.completion.chunk",  "id": 1}\n\n'
    assert merge(odd) == odd
    assert merge(odd + odd + b"data: [DO") == odd + odd + b"data: [DO"


class Pieces(AsyncByteStream):
    """What comes off the network, piece by piece; each when the one before it was read, if not told otherwise."""

    def __init__(self, *pieces: bytes | Exception | asyncio.Event) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, Exception):
                raise piece
            else:
                self.read += len(piece)
                yield piece

    async def aclose(self) -> None:
        self.closed = True


async def test_a_consumer_that_keeps_up_gets_each_at_once() -> None:
    more = [asyncio.Event() for _ in range(3)]
    first, second, third = (stream(chat(word)) for word in ("a", "b", "c"))
    merged = aiter(Merged(Pieces(first, more[0], second, more[1], third)))
    for wait, wanted in zip(more, (first, second, third), strict=True):
        assert await asyncio.wait_for(anext(merged), 5) == wanted
        wait.set()
    with pytest.raises(StopAsyncIteration):
        await anext(merged)


async def test_one_that_is_behind_gets_all_in_one_with_halves_put_together() -> None:
    events = stream(*(chat(f"{n} ") for n in range(50)), "data: [DONE]")
    pieces = [events[at : at + 7] for at in range(0, len(events), 7)]
    got = [piece async for piece in Merged(Pieces(*pieces))]
    assert parsed(b"".join(got)) == parsed(stream(chat("".join(f"{n} " for n in range(50))), "data: [DONE]"))


@pytest.mark.parametrize(
    "end", [b"", b"data: half", b'data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\n\r\n', b": x\n"]
)
async def test_whatever_comes_arrives(end: bytes) -> None:
    start = stream(chat("a"), "data: x")
    assert b"".join([piece async for piece in Merged(Pieces(start, end))]) == start + end


async def test_lines_that_end_otherwise_are_not_held_back() -> None:
    never = asyncio.Event()
    merged = aiter(Merged(Pieces(b'data: {"a": 1}\r\n\r\n', never)))
    assert await asyncio.wait_for(anext(merged), 5) == b'data: {"a": 1}\r\n\r\n'
    await merged.aclose()  # type: ignore[attr-defined]


async def test_a_slow_consumer_makes_the_provider_wait() -> None:
    piece = stream("data: " + "x" * 1000)
    source = Pieces(*[piece] * 1000)
    merged = aiter(Merged(source))
    await anext(merged)
    await asyncio.sleep(0.05)
    assert source.read < 2 * AHEAD + 2 * len(piece)
    rest = [got async for got in merged]
    assert source.read == 1000 * len(piece)
    assert rest


async def test_an_event_larger_than_what_is_read_ahead_arrives() -> None:
    large = stream("data: " + "x" * (3 * AHEAD))
    pieces = [large[at : at + 9999] for at in range(0, len(large), 9999)]
    assert b"".join([piece async for piece in Merged(Pieces(*pieces, stream("data: y")))]) == large + stream(
        "data: y"
    )


async def test_an_error_comes_after_what_arrived_before_it() -> None:
    merged = aiter(Merged(Pieces(stream(chat("a")), ConnectionError("lost"))))
    assert await anext(merged) == stream(chat("a"))
    with pytest.raises(ConnectionError, match="lost"):
        await anext(merged)


async def test_who_iterates_once_more_gets_the_rest() -> None:
    """As openai's client does after the last event, before it has ended its first iteration."""
    done, wait = stream("data: [DONE]"), asyncio.Event()
    source = Pieces(stream(chat("a")) + done, wait, b": bye\n\n")
    merged = Merged(source)
    first = aiter(merged)
    assert await anext(first) == stream(chat("a")) + done
    wait.set()
    assert [piece async for piece in merged] == [b": bye\n\n"]
    await first.aclose()  # type: ignore[attr-defined]
    assert [piece async for piece in merged] == []
    await merged.aclose()


async def test_a_stream_takes_no_longer_than_its_provider(provider: httpx.Client) -> None:
    """Nor does the connection get lost, which the client would use for the next question."""
    async with openai.AsyncOpenAI(
        base_url=str(provider.base_url.join("/v1")), api_key="x", http_client=merging_client(), max_retries=0
    ) as client:
        for _ in range(100):
            answer = await client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            texts = [chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices]
            assert "".join(texts) == "Heard 1: hello"


async def test_who_goes_away_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    merged = aiter(Merged(Pieces(stream(chat("a")), asyncio.Event())))
    await anext(merged)
    await merged.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == before
