"""Open streams all at once and read them to their ends: ``streams.py HOST:PORT PATH STREAMS MARK``.

Prints as JSON how long each took to the first bytes with the text MARK, and how many ended as they should. The
body of the request comes on standard input.
"""

import asyncio
import json
import sys
import time

ENDS = (b"[DONE]", b"event: done")


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
    address, path, streams, mark = sys.argv[1:]
    host, port = address.split(":")
    body = sys.stdin.buffer.read()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\naccept: text/event-stream\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    reading = [read(host, int(port), head.encode() + body, mark.encode()) for _ in range(int(streams))]
    answers = await asyncio.gather(*reading)
    ended = sum(any(end in received for end in ENDS) for _, received in answers)
    print(json.dumps({"first": [first for first, _ in answers], "ended": ended}))


if __name__ == "__main__":
    asyncio.run(main())
