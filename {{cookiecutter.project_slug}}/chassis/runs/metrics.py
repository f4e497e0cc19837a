"""What is to be seen of runs from outside. All of it counts for nobody unless telemetry is on, see chassis/telemetry.py."""

from opentelemetry import metrics
from pydantic_ai.usage import RunUsage

meter = metrics.get_meter("chassis.runs")
ended_runs = meter.create_counter("agent.runs", description="Runs that ended.")
duration = meter.create_histogram("agent.run.duration", "s", "How long runs took.")
first_words = meter.create_histogram(
    "agent.run.first_words", "s", "How long streamed runs took to say anything."
)
tokens = meter.create_counter("agent.tokens", "{token}", "Tokens that runs used.")
cost = meter.create_counter("agent.cost", "USD", "What runs cost, as far as the models' prices are known.")


def count(agent: str, status: str, seconds: float, usage: RunUsage) -> None:
    """Count a run that has ended, `seconds` after it began."""
    labels = {"agent": agent, "status": status}
    ended_runs.add(1, labels)
    duration.record(seconds, labels)
    tokens.add(usage.input_tokens, {"agent": agent, "direction": "input"})
    tokens.add(usage.output_tokens, {"agent": agent, "direction": "output"})
    if usage.cost:
        cost.add(float(usage.cost), {"agent": agent})
