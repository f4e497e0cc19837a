"""Traces and metrics by OpenTelemetry: sent over OTLP/HTTP once OTEL_EXPORTER_OTLP_ENDPOINT is set.

FastAPI's, SQLAlchemy's and pydantic-ai's own instrumentation, all without what users or models say unless
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says otherwise. The standard variables hold:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.settings import SettingsError, read_bool

ENDPOINTS = ("", "TRACES_", "METRICS_")
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROMETHEUS = "chassis.telemetry.prometheus"
HOST, PORT = "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Whether anything is told: sent over OTLP, with contents or without, or fetched by Prometheus."""

    sends: bool
    content: bool
    # Where Prometheus finds it.
    host: str
    port: int | None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingsError: naming the one that is wrong.
        """
        sends = any(env.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in ENDPOINTS)
        return cls(
            sends,
            read_bool(env, CONTENT) and sends,
            env.get(HOST) or "localhost",
            _read_port(env),
        )


def _read_port(env: Mapping[str, str]) -> int | None:
    value = env.get(PORT, "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdecimal()) or not 0 < int(value) < 65536:
        raise SettingsError(f"{PORT} must be a number from 1 to 65535, not {value!r}.")
    if find_spec(PROMETHEUS) is None:
        raise SettingsError(
            f"{PORT} is set, but this workspace has no endpoint for Prometheus. Add it with "
            "`python -m chassis update --answer use_prometheus=yes`, or remove the variable."
        )
    if (workers := env.get("WEB_CONCURRENCY", "1").strip()) not in {"", "1"}:
        raise SettingsError(
            f"{PORT} can tell of one process, and WEB_CONCURRENCY={workers} asks for more. "
            "Run more containers instead, or send metrics to a collector with OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    return int(value)


def config(
    name: str, settings: TelemetrySettings, env: Mapping[str, str] = os.environ, redact: Sequence[str] = ()
) -> TelemetryConfig:
    """Return FastAPI's part: it makes the exporters, and spans and metrics of requests but health checks.

    Args:
        name: the service's.
        settings: whether anything is told.
        env: where the secrets are that no trace with content may hold.
        redact: regular expressions of what it mustn't hold besides.
    """
    # The exporters read the process's own environment. One that finds no collector mustn't hold up the end.
    os.environ.setdefault("OTEL_SERVICE_NAME", name)
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    if settings.content:
        from chassis.telemetry.redaction import RedactingTracerProvider, redactor

        # FastAPI adds its exporter to it. Where there is one already, `start` finds that it isn't ours.
        trace.set_tracer_provider(RedactingTracerProvider(redactor(env, redact)))
    return {
        "auto_configure": settings.sends,
        "logs": False,
        "operation_spans": False,
        "exclude": _is_health_check,
    }


def start(engine: AsyncEngine, settings: TelemetrySettings) -> Callable[[], None]:
    """Trace statements and runs, if anything is told, and return what ends it.

    To be called once FastAPI has made the exporters, as the service starts.
    """
    stop = _nothing
    if settings.port is not None:
        stop = import_module(PROMETHEUS).serve(settings.host, settings.port)
    if settings.sends or settings.port is not None:
        _instrument(engine, content=settings.content and _is_redacted())
    return stop


def _nothing() -> None:
    pass


def _is_redacted() -> bool:
    from chassis.telemetry.redaction import RedactingTracerProvider

    if isinstance(trace.get_tracer_provider(), RedactingTracerProvider):
        logger.warning(
            "Traces hold what users and models say, since %s is on. Known secrets are taken out, other contents aren't.",
            CONTENT,
        )
        return True
    logger.error(
        "%s is ignored: somebody else has set up OpenTelemetry in this process, and secrets could not be taken out.",
        CONTENT,
    )
    return False


def _instrument(engine: AsyncEngine, *, content: bool) -> None:
    # Here, because a service without telemetry needn't wait for these imports.
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Status, StatusCode
    from pydantic_ai import Agent, InstrumentationSettings

    class WithoutValues(SpanProcessor):
        """Keeps out of spans what may quote a value: query strings, and PostgreSQL's messages of errors."""

        def on_start(self, span: Any, parent_context: context.Context | None = None) -> None:
            if "url.query" in (span.attributes or ()):
                span.set_attribute("url.query", "REDACTED")
            set_status = span.set_status

            def set_status_only(status: Status | StatusCode, description: str | None = None) -> None:
                set_status(status.status_code if isinstance(status, Status) else status)

            span.set_status = set_status_only  # an ended span can't be changed

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider) and not content:
        provider.add_span_processor(WithoutValues())
    # It names SQLAlchemy up to 2.0 only, but uses events that are in 2.1 too: tests/test_operations.py looks.
    SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine, skip_dep_check=True)
    # A picture is in no trace: it is large, and no filter can tell what it shows.
    Agent.instrument_all(InstrumentationSettings(include_content=content, include_binary_content=False))
    # What the process does of its own accord would be a trace of its own, several times a second.
    _leave_out()


def _is_health_check(scope: MutableMapping[str, Any]) -> bool:
    if scope["path"] not in {"/health", "/ready"}:
        return False
    _leave_out()
    return True


def _leave_out() -> None:
    """Trace no statement from here on in this task, and in those that it starts."""
    context.attach(context.set_value("suppress_instrumentation", True))
