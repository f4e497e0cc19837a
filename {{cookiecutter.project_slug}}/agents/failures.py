"""What went wrong in a run, in words fit for the caller.

A provider's own message may hold parts of a key or of a prompt, so none is ever repeated.
"""

from http import HTTPStatus

from psycopg.errors import ForeignKeyViolation, UndefinedColumn, UndefinedTable
from pydantic_ai import exceptions as ai
from pydantic_ai.conversation_store import ConversationConflict
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class RunError(Exception):
    """A run can't start or didn't end well; the message is for the caller."""

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after: float | None = None) -> None:
        """Keep the HTTP `status` that tells it best, and after how many seconds to try again, if known."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


# Told to whoever waits for a run that the end of its process cut off.
INTERRUPTED = RunError(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The service stopped before the run had ended. Send it again.",
    retry_after=1,
)

# The first that fits counts.
FAILURES: tuple[tuple[type[Exception], HTTPStatus, str], ...] = (
    (
        ConversationConflict,
        HTTPStatus.CONFLICT,
        "Another run changed the conversation meanwhile. Send it again.",
    ),
    (OperationalError, HTTPStatus.SERVICE_UNAVAILABLE, "The database can't be reached."),
    (PoolTimeoutError, HTTPStatus.SERVICE_UNAVAILABLE, "The database is too busy for now."),
    (ai.RunTimedOut, HTTPStatus.GATEWAY_TIMEOUT, "The run took longer than AGENT_TIMEOUT allows."),
    (ai.RunCancelled, HTTPStatus.CONFLICT, "The run was cancelled."),
    (ai.ModelTimeoutError, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    (ai.ModelRequestTimeout, HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time."),
    (
        ai.ModelRateLimitError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The model's provider allows no more requests for now.",
    ),
    (
        ai.ModelQuotaExceededError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The provider's account has no quota or credit left.",
    ),
    (ai.ModelUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "The model is overloaded or down for now."),
    (
        ai.ModelAuthenticationError,
        HTTPStatus.BAD_GATEWAY,
        "The provider refuses the service's key for this model.",
    ),
    (
        ai.ModelNotFoundError,
        HTTPStatus.BAD_GATEWAY,
        "The provider doesn't know the model: check AGENT_MODEL.",
    ),
    (
        ai.ModelContextWindowExceededError,
        HTTPStatus.BAD_GATEWAY,
        "The conversation is too long: start a new one.",
    ),
    (ai.ModelConnectionError, HTTPStatus.BAD_GATEWAY, "The model's provider can't be reached."),
    (ai.ModelAPIError, HTTPStatus.BAD_GATEWAY, "The model's provider refused the request or failed."),
    (ai.UsageLimitExceeded, HTTPStatus.BAD_GATEWAY, "No answer was found within AGENT_REQUEST_LIMIT."),
    (ai.AgentRunError, HTTPStatus.BAD_GATEWAY, "The model answered with something the agent can't use."),
)


def explain(error: Exception) -> RunError:
    """Say what an error of a run means for its caller."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, ProgrammingError) and isinstance(error.orig, (UndefinedTable, UndefinedColumn)):
        return RunError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The database's tables are not those that this code needs: /ready says what to do.",
        )
    if isinstance(error, IntegrityError) and isinstance(error.orig, ForeignKeyViolation):
        return RunError(HTTPStatus.CONFLICT, "The conversation was deleted meanwhile.")
    for kind, status, detail in FAILURES:
        if isinstance(error, kind):
            return RunError(status, detail, retry_after=getattr(error, "retry_after", None))
    return RunError(HTTPStatus.INTERNAL_SERVER_ERROR, "The run failed. The service's log says why.")
