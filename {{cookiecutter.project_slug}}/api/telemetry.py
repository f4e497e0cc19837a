"""Traces and metrics by OpenTelemetry, sent over OTLP/HTTP once OTEL_EXPORTER_OTLP_ENDPOINT is set.

FastAPI's, SQLAlchemy's and pydantic-ai's own instrumentation, all without what users or models say. The
standard variables hold: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span

ENDPOINTS = ("", "TRACES_", "METRICS_")


def config(name: str, env: Mapping[str, str] = os.environ) -> TelemetryConfig:
    """Return FastAPI's part: it makes the exporters, and spans and metrics of requests but health checks."""
    os.environ.setdefault("OTEL_SERVICE_NAME", name)  # The exporters read the process's own environment.
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
    from opentelemetry.trace import Status
    from pydantic_ai import Agent, InstrumentationSettings

    class WithoutMessages(SpanProcessor):
        """Takes out of spans what may quote a value: messages of PostgreSQL's errors, and query strings."""

        def _on_ending(self, span: "Span") -> None:
            span.set_status(Status(span.status.status_code))
            if span.attributes and "url.query" in span.attributes:
                span.set_attribute("url.query", "REDACTED")

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(WithoutMessages())
    SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine)
    Agent.instrument_all(InstrumentationSettings(include_content=False))


def _is_health_check(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in {"/health", "/ready"}
