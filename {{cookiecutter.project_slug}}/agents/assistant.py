"""A general assistant. Copy this module to start an agent of your own."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic_ai import Agent, ModelRetry

from agents.deps import Deps

# The model is chosen for each run, see agents/models.py.
AGENT = Agent(
    name="Assistant",
    description="Answers questions and knows the time.",
    deps_type=Deps,
    instructions=(
        "You are a helpful assistant. Answer in the language of the question, briefly and plainly. "
        "Say so when you don't know something."
    ),
)


@AGENT.tool_plain
def current_time(time_zone: str = "UTC") -> str:
    """Tell the date and time of now.

    Args:
        time_zone: an IANA name, for example Europe/Berlin.
    """
    try:
        zone = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ModelRetry(
            f"There is no time zone {time_zone!r}: use an IANA name such as Europe/Berlin."
        ) from error
    return datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")
