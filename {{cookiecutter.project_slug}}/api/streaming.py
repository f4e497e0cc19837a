"""Server-sent events, and noticing that the caller has gone.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import anyio
from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agents.store import encodable

T = TypeVar("T")

# Load balancers close a connection on which nothing moves, AWS' after 60 seconds.
PING_SECONDS: float = 15
PING = b": ping\n\n"


def event(name: str, data: Any) -> bytes:
    """Write one event; `data` goes as JSON, which is always a single line."""
    return f"event: {name}\ndata: {encodable(json.dumps(data, ensure_ascii=False))}\n\n".encode()


class EventStream(Response):
    """Sends events as they come; when the caller goes away, their source is cancelled at once.

    Starlette's own streaming response notices that only when it next has something to send, and a
    model that thinks for a minute would cost money until then.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        """Keep the source, which yields one event at least; it is closed in any case."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        async with aclosing(self._events):
            # A source that was never started can't tidy up, so it starts before anything can cancel it.
            first = await anext(self._events)
            with _cancelled_on_disconnect(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                pings = asyncio.create_task(_ping(send))
                try:
                    async for chunk in self._events:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                finally:
                    pings.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Await the work; when the caller goes away, cancel it."""
    with _cancelled_on_disconnect(request.receive):
        return await work
    # Nobody is there to read it.
    raise HTTPException(HTTPStatus.BAD_REQUEST, "The caller has closed the connection.")


@contextmanager
def _cancelled_on_disconnect(receive: Receive) -> Iterator[None]:
    """Cancel what the block awaits when the caller goes away, and go on after the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    # A scope and a task rather than a task group, which would wrap every error in a group of errors.
    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


async def _ping(send: Send) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        await send({"type": "http.response.body", "body": PING, "more_body": True})
