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

from chassis.errors import RunError

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
        ping: bytes = PING,
        on_disconnect: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
        refuse: Callable[[RunError], Response] | None = None,
    ) -> None:
        """Keep the source, which yields one chunk at least; it is closed in any case.

        The answer's status is sent with the first chunk or ping, whichever comes first.

        Proxies may neither keep the answer nor compress it, for which they would hold parts of it back.

        Args:
            chunks: what to send.
            ping_seconds: how often to send `ping`. Load balancers close a connection on which
                nothing moves, AWS' after 60 seconds.
            ping: an event that means nothing; a comment, unless the protocol's clients know none.
            on_disconnect: makes the source end when the caller goes away; else it is cancelled.
            headers: more of the answer's headers.
            refuse: makes an answer of the source's error. It is given in place of the stream where that has not
                begun, so that clients see its status and headers, and its body is the last event where it has.
        """
        super().__init__(
            headers={**(headers or {}), "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._chunks = chunks
        self._ping_seconds = ping_seconds
        self._ping = ping
        self._on_disconnect = on_disconnect
        self._refuse = refuse
        self._begun = False
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        async with aclosing(self._chunks):
            # A source that was never started can't tidy up: nothing is awaited here before its first step.
            with _watching(receive, self._on_disconnect):
                pings = asyncio.create_task(self._keep_alive(send))
                open_streams.add(1)
                try:
                    async for chunk in self._chunks:
                        await self._send(send, chunk)
                except RunError as error:
                    if self._refuse is None:
                        raise
                    # What is being sent, a ping say, is sent whole.
                    async with self._sending:
                        pings.cancel()
                    refusal = self._refuse(error)
                    if not self._begun:
                        await refusal(scope, receive, send)
                        return
                    await self._send(send, b"data: %s\n\n" % bytes(refusal.body))
                finally:
                    open_streams.add(-1)
                    pings.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, chunk: bytes) -> None:
        # The source's chunks and the pings are sent by two tasks.
        async with self._sending:
            if not self._begun:
                self._begun = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._ping_seconds)
            await self._send(send, self._ping)


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
