"""Traces and metrics by OpenTelemetry, sent over OTLP/HTTP once OTEL_EXPORTER_OTLP_ENDPOINT is set.

FastAPI's, SQLAlchemy's and pydantic-ai's own instrumentation, all without what users or models say. The
standard variables hold: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context
from sqlalchemy.ext.asyncio import AsyncEngine

ENDPOINTS = ("", "TRACES_", "METRICS_")


def config(name: str, env: Mapping[str, str] = os.environ) -> TelemetryConfig:
    """Return FastAPI's part: it makes the exporters, and spans and metrics of requests but health checks."""
    # The exporters read the process's own environment. One that finds no collector mustn't hold up the end.
    os.environ.setdefault("OTEL_SERVICE_NAME", name)
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    on = is_on(env)
    return {"auto_configure": on, "logs": False, "operation_spans": False, "exclude": _is_health_check}


def is_on(env: Mapping[str, str] = os.environ) -> bool:
    """Tell whether there is a place to send anything to."""
    return any(env.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in ENDPOINTS)


def instrument(engine: AsyncEngine) -> None:
    """Trace statements and runs. To be called once FastAPI has made the exporters, as the service starts."""
    # Here, because a service without telemetry needn't wait for these imports.
    from opentelemetry import trace
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
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(WithoutValues())
    # It names SQLAlchemy up to 2.0 only, but uses events that are in 2.1 too: tests/test_operations.py looks.
    SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine, skip_dep_check=True)
    Agent.instrument_all(InstrumentationSettings(include_content=False))
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
