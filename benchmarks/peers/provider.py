"""A model provider that answers at once, as cheap as Python allows: ``provider.py PORT``.

It speaks what the clients need of OpenAI's chat completions and reads no more of a request than its
length and whether it wants a stream. The model `stream-N-MS` writes N words, one every MS milliseconds.
"""

import asyncio
import json
import re
import sys
from typing import cast

USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
WORDS = "Hello! I am a canned answer."


def answer_head(status: str, kind: str, length: str) -> bytes:
    """Return an answer's status line and headers."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode()


def completion() -> bytes:
    """Return the whole answer to a request that wants it in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "fake",
            "choices": [choice],
            "usage": USAGE,
        }
    ).encode()
    return answer_head("200 OK", "application/json", f"content-length: {len(body)}") + body


def chunk(delta: dict[str, str], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """Return one event of a streamed answer, as a piece of HTTP's chunked encoding."""
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": usage,
    }
    return chunked(f"data: {json.dumps(document)}\n\n".encode())


def chunked(data: bytes) -> bytes:
    """Return the bytes as a piece of HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


COMPLETION = completion()
STREAM_HEAD = answer_head("200 OK", "text/event-stream", "transfer-encoding: chunked")
STREAM_END = chunk({}, "stop", USAGE) + chunked(b"data: [DONE]\n\n") + chunked(b"")


class Provider(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self.transport = cast("asyncio.Transport", transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer the request once all of it is there."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = re.search(rb"content-length: *(\d+)", self.received[:end], re.IGNORECASE)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(self.received) < size:
            return
        request, self.received = self.received[:size], self.received[size:]
        if re.search(rb'"stream": *true', request):
            words = re.search(rb'"model": *"stream-(\d+)-(\d+)"', request)
            count, pause = (int(words[1]), int(words[2]) / 1000) if words else (3, 0)
            self.transport.write(STREAM_HEAD + chunk({"role": "assistant", "content": ""}))
            self.say(count, pause)
        else:
            self.transport.write(COMPLETION)

    def say(self, count: int, pause: float) -> None:
        """Write the words of a streamed answer, the first at once."""
        if self.transport.is_closing():
            return
        if count == 0:
            self.transport.write(STREAM_END)
            return
        self.transport.write(chunk({"content": "word "}))
        if pause:
            asyncio.get_running_loop().call_later(pause, self.say, count - 1, pause)
        else:
            self.say(count - 1, pause)


async def main() -> None:
    """Serve until the process is stopped."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
