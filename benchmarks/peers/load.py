"""A client that costs little, so that what is measured is the server: keep-alive, raw bytes, one process.

``load.py HOST:PORT PATH CLIENTS SECONDS CONTENT_TYPE`` with the body on standard input; prints JSON.
"""

import asyncio
import json
import re
import sys
import time
from statistics import median
from typing import cast


class Client(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is there, until the time is over."""

    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        """Keep what to send, until when, and where to note how long each answer took."""
        self.request, self.until, self.times = request, until, times
        self.received, self.size = b"", 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        """Send the request."""
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Once an answer is complete, note its time and go on."""
        self.received += data
        if not self.size:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = re.search(rb"content-length: *(\d+)", self.received[:end], re.IGNORECASE)
            if b" 200 " not in self.received[:20] or length is None:
                self.end(self.received[:2000].decode(errors="replace"))
                return
            self.size = end + 4 + int(length[1])
        if len(self.received) >= self.size:
            self.received, self.size = b"", 0
            self.times.append(time.perf_counter() - self.began)
            if time.perf_counter() < self.until:
                self.send()
            else:
                self.end()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless all is done."""
        self.end(f"The connection was lost: {error}")

    def end(self, failure: str = "") -> None:
        """Close the connection."""
        if not self.done.done():
            if failure:
                self.done.set_exception(RuntimeError(failure))
            else:
                self.done.set_result(None)
        self.transport.close()


async def main() -> None:
    """Send, and print what came of it."""
    address, path, clients, seconds, content_type = sys.argv[1:]
    host, port = address.split(":")
    body = sys.stdin.buffer.read()
    head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    times: list[float] = []
    began = time.perf_counter()
    until = began + float(seconds)
    made = [
        await asyncio.get_running_loop().create_connection(
            lambda: Client(head.encode() + body, until, times), host, int(port)
        )
        for _ in range(int(clients))
    ]
    await asyncio.gather(*(client.done for _, client in made))
    elapsed = time.perf_counter() - began
    print(
        json.dumps({"per_second": len(times) / elapsed, "median_ms": median(times) * 1000, "n": len(times)})
    )


if __name__ == "__main__":
    asyncio.run(main())
