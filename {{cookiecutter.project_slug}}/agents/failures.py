"""What went wrong in a run, in words fit for the caller.

A provider's own message may hold parts of a key or of a prompt, so none is ever repeated.
"""

from http import HTTPStatus

from pydantic_ai import exceptions
from pydantic_ai.conversation_store import ConversationConflict


class RunError(Exception):
    """A run can't start or didn't end well; the message is for the caller."""

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after: float | None = None) -> None:
        """Keep the HTTP `status` that tells it best, and after how many seconds to try again, if known."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


# The first that fits counts.
FAILURES: tuple[tuple[type[Exception], HTTPStatus, str], ...] = (
    (
        ConversationConflict,
        HTTPStatus.CONFLICT,
        "Another run changed or deleted the conversation meanwhile, so this answer was not kept. Send it again.",
    ),
    (
        exceptions.RunTimedOut,
        HTTPStatus.GATEWAY_TIMEOUT,
        "The run took longer than AGENT_TIMEOUT allows.",
    ),
    (exceptions.ModelTimeoutError, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    (exceptions.ModelRequestTimeout, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    (
        exceptions.ModelRateLimitError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The model's provider allows no more requests for now.",
    ),
    (
        exceptions.ModelQuotaExceededError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The account with the model's provider has no quota or credit left.",
    ),
    (
        exceptions.ModelUnavailableError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The model is overloaded or down for now.",
    ),
    (
        exceptions.ModelAuthenticationError,
        HTTPStatus.BAD_GATEWAY,
        "The model's provider refused the service's key: check that it is valid and may use this model.",
    ),
    (
        exceptions.ModelNotFoundError,
        HTTPStatus.BAD_GATEWAY,
        "The model's provider doesn't know the model: check AGENT_MODEL.",
    ),
    (
        exceptions.ModelContextWindowExceededError,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The conversation is too long for the model: start a new one.",
    ),
    (exceptions.ModelConnectionError, HTTPStatus.BAD_GATEWAY, "The model's provider can't be reached."),
    (exceptions.ModelAPIError, HTTPStatus.BAD_GATEWAY, "The model's provider refused the request or failed."),
    (
        exceptions.UsageLimitExceeded,
        HTTPStatus.BAD_GATEWAY,
        "The agent found no answer within the requests to the model that AGENT_REQUEST_LIMIT allows.",
    ),
    (
        exceptions.AgentRunError,
        HTTPStatus.BAD_GATEWAY,
        "The model answered with something the agent can't use.",
    ),
)


def explain(error: Exception) -> RunError:
    """Say what an error of a run means for its caller."""
    if isinstance(error, RunError):
        return error
    for kind, status, detail in FAILURES:
        if isinstance(error, kind):
            return RunError(status, detail, retry_after=getattr(error, "retry_after", None))
    return RunError(HTTPStatus.INTERNAL_SERVER_ERROR, "The run failed. The service's log says why.")
