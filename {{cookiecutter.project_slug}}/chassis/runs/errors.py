"""What went wrong in a run, in words fit for the caller.

A provider's own message may hold parts of a key or of a prompt, so none is ever repeated.
"""

import re
from http import HTTPStatus
from traceback import walk_tb
from typing import NamedTuple

from pydantic_ai import exceptions as ai
from pydantic_ai.conversation_store import ConversationConflict
from sqlalchemy.exc import SQLAlchemyError

from chassis.errors import RunError, explain_database_error

# Told to whoever waits for a run that the end of its process cut off.
INTERRUPTED = RunError(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The service stopped before the run had ended. Send it again.",
    retry_after=1,
)


def timed_out() -> RunError:
    """Say that a run took too long."""
    detail = "The run took longer than AGENT_TIMEOUT allows."
    return RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, code="run_timeout", final=True)


def too_busy() -> RunError:
    """Say that a run can't start now; nothing was spent on it."""
    detail = "As many runs are underway here as one process carries. Try again in a moment."
    return RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=2)


def still_underway() -> RunError:
    """Say that a request was sent again before the first one of it has ended."""
    detail = "The first request with this Idempotency-Key is still underway."
    return RunError(HTTPStatus.CONFLICT, detail, retry_after=1)


UNREACHABLE_FILE = RunError(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "A file's address can't be fetched: it is private, or answers with an error. Send the file itself.",
    code="invalid_file_url",
    final=True,
)
NO_NATIVE_TOOL = RunError(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The agent has a tool that this model's provider doesn't offer, such as web search: choose another model.",
    final=True,
)
UNREADABLE_FILE = RunError(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The model can't read a file of this kind: send another kind.",
    code="invalid_request",
    final=True,
)
# In the words of the library, which has no class of its own for it.
NATIVE_TOOL = re.compile(r"Native tool.* not supported|\w+Tool is not supported")
DOWNLOADS = "pydantic_ai._ssrf"
MODELS = "pydantic_ai.models."
# AWS's own errors before a request is sent, such as that a role is gone; of all others pydantic-ai makes its own.
BEDROCK_ERRORS = "botocore.exceptions"
# What a provider refuses now and may not later.
PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)


class Failure(NamedTuple):
    """What an error means for the caller; for `code` and `final` see `RunError`."""

    kind: type[Exception]
    status: HTTPStatus
    detail: str
    code: str | None = None
    final: bool = False


# The first that fits counts. What the caller can mend is a 4xx. What is final would fail again however often a
# client repeats it by itself, or cost all that the run has cost once more: that is no 5xx, which many clients repeat
# whatever the headers say. Where the service's own key or model is wrong it is one, for whoever watches the service.
FAILURES = (
    Failure(ConversationConflict, HTTPStatus.CONFLICT, "Another run changed the conversation meanwhile. Send it again."),
    Failure(ai.RunCancelled, HTTPStatus.CONFLICT, "The run was cancelled.", final=True),
    Failure(ai.ModelTimeoutError, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    Failure(ai.ModelRequestTimeout, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    Failure(ai.ModelRateLimitError, HTTPStatus.SERVICE_UNAVAILABLE, "The model's provider allows no more requests for now.", "rate_limit_exceeded"),
    Failure(ai.ModelQuotaExceededError, HTTPStatus.SERVICE_UNAVAILABLE, "The provider's account has no quota or credit left.", "insufficient_quota", final=True),
    Failure(ai.ModelUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "The model is overloaded or down for now."),
    Failure(ai.ModelAuthenticationError, HTTPStatus.BAD_GATEWAY, "The provider refuses the service's key for this model.", final=True),
    Failure(ai.ModelNotFoundError, HTTPStatus.BAD_GATEWAY, "The provider doesn't know the model: check AGENT_MODEL.", final=True),
    # In the words that clients look for, where they don't look for the code.
    Failure(ai.ModelContextWindowExceededError, HTTPStatus.BAD_REQUEST, "The conversation is too long, this model's maximum context length is exceeded: start a new one.", "context_length_exceeded", final=True),
    Failure(ai.ModelRequestRejectedError, HTTPStatus.BAD_REQUEST, "The model's provider refused the request.", "invalid_request", final=True),
    Failure(ai.ModelConnectionError, HTTPStatus.BAD_GATEWAY, "The model's provider can't be reached."),
    Failure(ai.ModelAPIError, HTTPStatus.BAD_GATEWAY, "The model's provider refused the request or failed."),
    Failure(ai.UsageLimitExceeded, HTTPStatus.UNPROCESSABLE_ENTITY, "No answer was found within AGENT_REQUEST_LIMIT.", "request_limit_exceeded", final=True),
    Failure(ai.ContentFilterError, HTTPStatus.BAD_REQUEST, "The model's provider refused the contents.", "content_policy_violation", final=True),
    Failure(ai.OutputTokenLimitExceeded, HTTPStatus.BAD_REQUEST, "The answer was cut off before it could be used: allow more tokens.", final=True),
    Failure(ai.AgentRunError, HTTPStatus.UNPROCESSABLE_ENTITY, "The model answered with something the agent can't use.", final=True),
)  # fmt: skip


def explain(error: Exception) -> RunError:
    """Say what an error of a run means for its caller."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, ai.FallbackExceptionGroup):
        # What the first says counts: it is the one that is meant to answer.
        return explain(error.exceptions[0])
    if isinstance(error, ai.RunTimedOut):
        return timed_out()
    if isinstance(error, SQLAlchemyError) and (failure := explain_database_error(error)):
        return failure
    for kind, status, detail, code, final in FAILURES:
        if isinstance(error, kind):
            return RunError(
                status,
                detail,
                retry_after=getattr(error, "retry_after", None),
                code=code,
                final=final or _refused(error),
            )
    if isinstance(error, ai.UserError | NotImplementedError) and NATIVE_TOOL.match(str(error)):
        return NO_NATIVE_TOOL
    if type(error).__module__ == BEDROCK_ERRORS:
        detail = "The service can't call the model's provider: its role, key or address is missing or wrong."
        return RunError(HTTPStatus.BAD_GATEWAY, detail, final=True)
    if _is_of_a_download(error):
        return UNREACHABLE_FILE
    # What they say so of are files, beside what no agent here is made with.
    if isinstance(error, NotImplementedError) and _modules(error)[-1].startswith(MODELS):
        return UNREADABLE_FILE
    return RunError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "The run failed. The service's log says why.", final=True
    )


def _is_of_a_download(error: Exception) -> bool:
    """Tell whether it comes from the library's fetching of files, which has no class of its own for it."""
    return DOWNLOADS in _modules(error)


def _modules(error: Exception) -> list[str]:
    """Return the modules that it came through, that where it was raised last."""
    return [""] + [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]


def _refused(error: Exception) -> bool:
    """Tell whether the provider would refuse the same request again."""
    status = getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
    return 400 <= status < 500 and status not in PASSING
