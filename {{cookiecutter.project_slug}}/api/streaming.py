"""Server-sent events, and noticing that the caller has gone.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import anyio
from fastapi import HTTPException
from opentelemetry import metrics
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agents.events import Event

T = TypeVar("T")

PING = b": ping\n\n"

# How the documentation describes them, one by one.
EVENT_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": EVENT_SCHEMA}}}}

open_streams = metrics.get_meter(__name__).create_up_down_counter(
    "agent.streams", description="Streams that are open."
)


def encoded(event: Event) -> bytes:
    """Write one event; JSON is always a single line."""
    return f"id: {event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode()


class EventStream(Response):
    """Sends chunks as they come; when the caller goes away, their source hears of it at once.

    Starlette's own streaming response notices that only when it next has something to send, and a
    model that thinks for a minute would cost money until then.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes],
        *,
        ping_seconds: float,
        on_disconnect: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the source, which yields one chunk at least; it is closed in any case.

        Args:
            chunks: what to send.
            ping_seconds: how often to send a comment. Load balancers close a connection on which
                nothing moves, AWS' after 60 seconds.
            on_disconnect: makes the source end when the caller goes away; else it is cancelled.
            headers: more of the answer's headers.
        """
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._chunks = chunks
        self._ping_seconds = ping_seconds
        self._on_disconnect = on_disconnect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        async with aclosing(self._chunks):
            # A source that was never started can't tidy up, so it starts before anything can cancel it.
            first = await anext(self._chunks)
            with _watching(receive, self._on_disconnect):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                pings = asyncio.create_task(_ping(send, self._ping_seconds))
                open_streams.add(1)
                try:
                    async for chunk in self._chunks:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                finally:
                    open_streams.add(-1)
                    pings.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_disconnected(request: Request, work: Awaitable[T], on_disconnect: Callable[[], None]) -> T:
    """Await the work; when the caller goes away, make it end."""
    with _watching(request.receive, on_disconnect):
        return await work
    # Nobody is there to read it.
    raise HTTPException(HTTPStatus.BAD_REQUEST, "The caller has closed the connection.")


@contextmanager
def _watching(receive: Receive, on_disconnect: Callable[[], None] | None) -> Iterator[None]:
    """When the caller goes away, say so, or else cancel what the block awaits and go on after it."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        (on_disconnect or scope.cancel)()

    # A scope and a task rather than a task group, which would wrap every error in a group of errors.
    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


async def _ping(send: Send, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await send({"type": "http.response.body", "body": PING, "more_body": True})
