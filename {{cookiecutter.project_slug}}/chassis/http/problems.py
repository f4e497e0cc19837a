"""All errors as problem details, `application/problem+json`.

https://www.rfc-editor.org/rfc/rfc9457
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from chassis.context import REQUEST_ID
from chassis.errors import RunError, explain_database_error

logger = logging.getLogger(__name__)

# How the documentation describes them.
OPENAPI: dict[str, Any] = {
    "description": "A problem, RFC 9457",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}


class ProblemResponse(JSONResponse):
    """A problem document as the answer."""

    media_type = "application/problem+json"


def problem(status: int, detail: str | None = None, **members: Any) -> dict[str, Any]:
    """Make a problem of the type ``about:blank``, whose title is the status code's own phrase.

    Args:
        status: the HTTP status code.
        detail: what is wrong this time, and what to do about it.
        members: more that a program may want to know.
    """
    document: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": int(status)}
    if detail and detail != document["title"]:
        document["detail"] = detail
    return document | members


def run_problem(failure: RunError) -> dict[str, Any]:
    """Make the problem of a run; `code` is OpenAI's word for it."""
    return problem(failure.status, failure.detail, **({"code": failure.code} if failure.code else {}))


def install(app: FastAPI) -> None:
    """Make the app answer every error with a problem."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, unforeseen)


def respond(request: Request, error: Exception) -> ProblemResponse:
    """Make the answer to an error; one that nobody foresaw is raised again."""
    for kind, handler in HANDLERS.items():
        if isinstance(error, kind):
            return handler(request, error)
    raise error


def _answer(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> ProblemResponse:
    return ProblemResponse(document, status_code=document["status"], headers=headers)


def _http(request: Request, error: Exception) -> ProblemResponse:
    error = cast("HTTPException", error)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _answer(problem(error.status_code, error.detail), headers)


def _methods(request: Request) -> set[str]:
    """Return the methods of the path. The router names only those of the first of its routes."""
    routes = (context.original_route for context in iter_route_contexts(request.app.routes))
    there = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    methods = {method for route in there for method in getattr(route, "methods", None) or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


def _validation(request: Request, error: Exception) -> ProblemResponse:
    # What was sent is not repeated: it may be long, or a secret in the wrong place.
    errors = [
        {
            "at": "/".join(str(part) for part in item["loc"]),
            "detail": item["msg"].removeprefix("Value error, "),
        }
        for item in cast("RequestValidationError", error).errors()
    ]
    detail = "; ".join(f"{item['at']}: {item['detail']}" for item in errors)
    return _answer(problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors))


def _run_failed(request: Request, error: Exception) -> ProblemResponse:
    failure = cast("RunError", error)
    return _answer(run_problem(failure), failure.headers)


def _database(request: Request, error: Exception) -> ProblemResponse:
    failure = explain_database_error(cast("SQLAlchemyError", error))
    if failure is None:
        raise error  # as any other that nobody foresaw, traceback included
    logger.warning("The database failed: %s", getattr(error, "orig", None) or error)
    return _run_failed(request, failure)


def unforeseen(request: Request, error: Exception) -> ProblemResponse:
    """Make the answer to an error that nobody foresaw."""
    # uvicorn closes the connection after it, and a client that doesn't know would use it once more.
    headers = {"X-Request-ID": REQUEST_ID.get() or "", "Connection": "close"}
    return _answer(problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The service's log says why."), headers)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], ProblemResponse]] = {
    HTTPException: _http,
    RequestValidationError: _validation,
    RunError: _run_failed,
    SQLAlchemyError: _database,
}
