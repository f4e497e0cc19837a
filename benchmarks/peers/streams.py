"""Open streams all at once and read them to their ends: ``streams.py HOST:PORT PATH STREAMS MARK CONTENT_TYPE``.

Prints as JSON how long each took to the first bytes with the text MARK, how many ended as they should, and after how
many seconds the last of them did. The body of the request comes on standard input; UNIQUE in it is something else in
each stream.
"""

import asyncio
import json
import sys
import time
import uuid

ENDS = (b"[DONE]", b"event: done", b"RUN_FINISHED", b"event: RunCompleted")


async def read(host: str, port: int, request: bytes, mark: bytes) -> tuple[float, bytes]:
    """Return the seconds to the mark, and all that came."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    began = time.perf_counter()
    received = b""
    while mark not in received:
        if not (data := await reader.read(65536)):
            raise RuntimeError(received[:2000].decode(errors="replace"))
        received += data
    first = time.perf_counter() - began
    while not any(end in received for end in ENDS) and (data := await reader.read(65536)):
        received += data
    writer.close()
    return first, received


async def main() -> None:
    """Read the streams, and print what came of it."""
    address, path, streams, mark, content_type = sys.argv[1:]
    host, port = address.split(":")
    form = sys.stdin.buffer.read()

    def request() -> bytes:
        body = form.replace(b"UNIQUE", uuid.uuid4().hex.encode())
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\naccept: text/event-stream\r\n"
            f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    began = time.perf_counter()
    reading = [read(host, int(port), request(), mark.encode()) for _ in range(int(streams))]
    answers = await asyncio.gather(*reading)
    last = time.perf_counter() - began
    ended = sum(any(end in received for end in ENDS) for _, received in answers)
    print(json.dumps({"first": [first for first, _ in answers], "ended": ended, "last": last}))


if __name__ == "__main__":
    asyncio.run(main())
