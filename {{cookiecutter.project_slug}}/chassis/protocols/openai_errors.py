"""Errors as OpenAI's clients read them: beside the problem document's own members in one more, `error`.

https://platform.openai.com/docs/guides/error-codes
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator

from chassis.errors import RunError
from chassis.http import problems
from chassis.http.middleware import UploadRoute

# OpenAI's words for what has none of its own here.
CODES: Mapping[int, str] = {HTTPStatus.UNAUTHORIZED: "invalid_api_key"}


class OpenAIRoute(UploadRoute):
    """A route whose problems also have the member `error`, which is where OpenAI's clients look."""

    ADVICE = "Send fewer files, or smaller ones; those of /v1/attachments may be named by their ids."

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler, which checks the key and the body too."""
        handle = super().get_route_handler()

        async def with_error(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                return refusal(request, error)

        return with_error


class ParamError(RunError):
    """Something is wrong with a member of the body, which no validator could tell."""

    def __init__(self, status: HTTPStatus, detail: str, *, param: str, code: str | None = None) -> None:
        super().__init__(status, detail, code=code, final=True)
        self.param = param


def refusal(request: Request, error: Exception) -> Response:
    """Make the answer to an error; one that nobody foresaw is raised again."""
    answer = problems.respond(request, error)
    at = error.errors()[0]["loc"][1:] if isinstance(error, RequestValidationError) else ()
    param = error.param if isinstance(error, ParamError) else ".".join(map(str, at))
    document = json.loads(bytes(answer.body))
    code = document.get("code") or CODES.get(answer.status_code)
    document |= _error(answer.status_code, document.get("detail"), param, code)
    del answer.headers["content-length"]
    return problems.ProblemResponse(document, answer.status_code, answer.headers)


def _error(status: int, detail: str | None, param: str, code: str | None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    code = code or HTTPStatus(status).name.lower()
    return {"error": {"message": detail, "type": kind, "param": param or None, "code": code}}


def refuse_unless(
    *harmless: Any, why: str = "the agent has its own tools and form of output"
) -> BeforeValidator:
    """Refuse a member that would change the answer and isn't offered.

    Clients send such members empty too, or with what is the case anyway, which asks for nothing.

    Args:
        harmless: what asks for nothing, beside what is empty.
        why: what to tell the caller.
    """

    def check(value: Any) -> None:
        if value and value not in harmless:
            raise ValueError(f"not supported, leave it out: {why}")

    return BeforeValidator(check)


Refused = Annotated[None, refuse_unless()]
RefusedForm = Annotated[None, refuse_unless({"type": "text"})]
