"""What a task works for, so that lines in the log can name it."""

from contextvars import ContextVar
from uuid import UUID

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
RUN_ID: ContextVar[UUID | None] = ContextVar("run_id", default=None)
