"""What a caller is told when something can't be done: a status of HTTP's, and words that hold nothing secret."""

from http import HTTPStatus
from math import ceil

from psycopg.errors import ForeignKeyViolation, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class RunError(Exception):
    """A run can't start or didn't end well; the message is for the caller."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        final: bool = False,
    ) -> None:
        """Keep what is to be told.

        Args:
            status: the HTTP status that tells it best.
            detail: what is wrong, and what to do about it.
            retry_after: after how many seconds to try again, if known.
            code: OpenAI's word for it, where it has one; clients act on it.
            final: whether the same request will fail again, or cost as much again.
        """
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.code = code
        self.final = final

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a program whether and when to try again."""
        after = {} if self.retry_after is None else {"Retry-After": str(ceil(self.retry_after))}
        # OpenAI's clients, and those made like them, try 409 and 5xx again by themselves unless this is said.
        return after | ({"X-Should-Retry": "false"} if self.final else {})


def explain_database_error(error: SQLAlchemyError) -> RunError | None:
    """Say what an error of the database means for the caller; None for one that nobody foresaw."""
    cause = getattr(error, "orig", None)
    if isinstance(error, ProgrammingError) and isinstance(cause, (UndefinedTable, UndefinedColumn)):
        detail = "The database's tables are not those that this code needs: /ready says what to do."
        return RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    if isinstance(error, IntegrityError) and isinstance(cause, ForeignKeyViolation):
        return RunError(HTTPStatus.CONFLICT, "The conversation was deleted meanwhile.")
    if isinstance(error, OperationalError):
        return RunError(HTTPStatus.SERVICE_UNAVAILABLE, "The database can't be reached.")
    if isinstance(error, PoolTimeoutError):
        return RunError(HTTPStatus.SERVICE_UNAVAILABLE, "The database is too busy for now.")
    return None
