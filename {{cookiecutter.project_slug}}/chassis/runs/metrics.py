"""What is to be seen of runs from outside. All of it counts for nobody unless telemetry is on, see chassis/telemetry.

No label names a caller, a conversation or a run: of these there may be any number. What one call of a model took, in
tokens and until its first words, pydantic-ai tells by OpenTelemetry's own names, `gen_ai.client.…`.
"""

from opentelemetry import metrics
from pydantic_ai.usage import RunUsage

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ and, since a run takes longer, one more. Those that
# hold without them are meant for milliseconds.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84)

meter = metrics.get_meter("chassis.runs")
ended_runs = meter.create_counter("agent.runs", description="Runs that ended.")
duration = meter.create_histogram(
    "agent.run.duration", "s", "How long runs took.", explicit_bucket_boundaries_advisory=SECONDS
)
first_words = meter.create_histogram(
    "agent.run.first_words",
    "s",
    "How long streamed runs took to say anything.",
    explicit_bucket_boundaries_advisory=SECONDS,
)
tokens = meter.create_counter("agent.tokens", "{token}", "Tokens that runs used.")
cost = meter.create_counter("agent.cost", "USD", "What runs cost, as far as the models' prices are known.")

feedback = meter.create_counter("agent.feedback", description="Thumbs that runs were given.")


def count(agent: str, model: str, status: str, seconds: float, usage: RunUsage) -> None:
    """Count a run that has ended, `seconds` after it began."""
    who = {"agent": agent, "model": model}
    labels = {**who, "status": status}
    ended_runs.add(1, labels)
    duration.record(seconds, labels)
    tokens.add(usage.input_tokens, {**who, "direction": "input"})
    tokens.add(usage.output_tokens, {**who, "direction": "output"})
    if usage.cost:
        cost.add(float(usage.cost), who)
