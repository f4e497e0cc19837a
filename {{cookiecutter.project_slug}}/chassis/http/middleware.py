"""What holds for every request before a route sees it: an id, a line in the log, limits on its body, CORS."""

import asyncio
import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.context import REQUEST_ID
from chassis.http import problems
from chassis.http.origins import pattern
from chassis.http.settings import ApiSettings

WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger("api.access")


class UploadRoute(APIRoute):
    """A route whose bodies may hold pictures and documents, so that they may be larger."""

    ADVICE = "Send only the newest message: the ones before it are kept here."


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Put them around the app. The last one added is the outermost."""
    app.add_middleware(BodyLimits, settings.max_body_bytes, settings.max_upload_bytes, settings.body_seconds)
    app.add_middleware(Failures)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_origin_regex=pattern(settings.cors_origins),
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            # SDKs and tracing add headers of their own. None gives a right: no cookie is read here.
            allow_headers=("*",),
            expose_headers=(
                *("Location", "Preference-Applied", "Retry-After"),
                *("X-Ping-Seconds", "X-Request-ID", "X-Should-Retry"),
            ),
        )
    app.add_middleware(RequestLog)
    app.add_middleware(Head)


class Head:
    """Answers HEAD, which monitors use, wherever GET is answered, and with the same headers.

    The server sends no body after them; what would go on making one is told that the caller has gone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        done = False

        async def send_head(message: Message) -> None:
            nonlocal done
            if not done:
                await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body"})
                done = True

        await self._app({**scope, "method": "GET"}, receive, send_head)


class RequestLog:
    """Gives a request its id, and writes its line when the answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
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


class Failures:
    """Answers an error that nobody foresaw, and lets it go on to the log.

    Starlette's own answer is made further out than CORS, so that no website could read it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] == "http" and not started:
                await problems.unforeseen(Request(scope), error)(scope, receive, send)
            raise


class BodyLimits:
    """Refuses a body that is too large or too slow.

    FastAPI's own `max_body_size` knows no time, and answers in plain text where the length was announced.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes
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
            # The body is read by the route, which is known by then.
            self._check_size(announced, scope.get("route"))
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"The body was not complete within {self._seconds:g} seconds."
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail) from None
            read += len(message.get("body", b""))
            self._check_size(read, scope.get("route"))
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_limited, send)

    def _check_size(self, size: int, route: Any) -> None:
        advice = route.ADVICE if isinstance(route, UploadRoute) else ""
        limit = self._max_upload_bytes if advice else self._max_bytes
        if size > limit:
            detail = f"The body may have {limit} bytes at most."
            detail += f" {advice}" if advice else ""
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
