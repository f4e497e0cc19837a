"""Server-sent events, and noticing that the caller has gone.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, TypeVar

import anyio
from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

# Load balancers close a connection on which nothing moves, AWS' after 60 seconds.
PING_SECONDS = 15
PING = b": ping\n\n"


def event(name: str, data: Any) -> bytes:
    """Write one event; `data` goes as JSON, which is always a single line."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


class EventStream(Response):
    """Sends events as they come. When the caller goes away, their source is cancelled at once.

    Starlette's own streaming response notices that only when it next has something to send, and a
    model that thinks for a minute would cost money until then.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        """Keep the source; it is closed in any case."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        async with anyio.create_task_group() as tasks, aclosing(self._events):
            tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            tasks.start_soon(_ping, send)
            async for chunk in self._events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Await the work; when the caller goes away, cancel it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_disconnect, request.receive, tasks.cancel_scope)
        result = await work
        tasks.cancel_scope.cancel()
        return result
    # Nobody reads this.
    raise HTTPException(HTTPStatus.BAD_REQUEST, "The caller has closed the connection.")


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _ping(send: Send) -> None:
    while True:
        await anyio.sleep(PING_SECONDS)
        await send({"type": "http.response.body", "body": PING, "more_body": True})
