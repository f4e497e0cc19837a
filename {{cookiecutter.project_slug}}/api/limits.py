"""What holds for every request before a route sees it: an id, a line in the log, limits on its body, CORS."""

import asyncio
import logging
import re
import time
import uuid
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.logs import REQUEST_ID
from api.settings import ApiSettings

WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger("api.access")


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Put the limits around the app. The last one added is the outermost."""
    app.add_middleware(BodyLimits, settings.max_body_bytes, settings.body_seconds)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("Authorization", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"),
            expose_headers=("Retry-After", "X-Request-ID"),
        )
    app.add_middleware(RequestLog)


class RequestLog:
    """Gives a request its id, and writes its line when the answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
        """Keep the app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), None
        shown = Headers(scope=scope).get("x-request-id", "")
        # uvicorn gives each request a task of its own, so the id ends with it.
        REQUEST_ID.set(request_id := shown if WELL_FORMED.fullmatch(shown) else str(uuid.uuid4()))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = status or 500  # which FastAPI answers further out
            raise
        finally:
            # The route's template: a path may hold what a user wrote, and where there is no route anything.
            line = {
                "method": scope["method"],
                "route": getattr(scope.get("route"), "path", "-"),
                "status": status,  # None: the caller went away before the answer began
                "duration_ms": round((time.perf_counter() - began) * 1000, 1),
                "owner": scope.get("state", {}).get("owner"),
            }
            logger.info("%(method)s %(route)s %(status)s in %(duration_ms)s ms", line, extra={"fields": line})


class BodyLimits:
    """Refuses a body that is too large or too slow.

    FastAPI's own `max_body_size` knows no time, and answers in plain text where the length was announced.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        """Keep the app and the limits."""
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; what reads its body gets the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        announced = int(Headers(scope=scope).get("content-length", 0))
        read, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal read, complete
            if complete:  # What comes now is the caller going away.
                return await receive()
            self._check_size(announced)
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"The body was not complete within {self._seconds:g} seconds."
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail) from None
            read += len(message.get("body", b""))
            self._check_size(read)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_limited, send)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            detail = f"The body may have {self._max_bytes} bytes at most."
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
