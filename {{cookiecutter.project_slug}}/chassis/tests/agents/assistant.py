"""An agent with tools."""

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic_ai import Agent, ModelRetry

from chassis.agents.deps import Deps

AGENT = Agent(
    name="Assistant", description="Answers questions.", deps_type=Deps, instructions="Answer in a few words."
)


@AGENT.tool_plain
def current_time(time_zone: str = "UTC") -> str:
    """Tell the date and time of now."""
    try:
        zone = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ModelRetry(f"There is no time zone {time_zone!r}: use an IANA name.") from error
    return datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


@AGENT.tool_plain
def search_conversations(words: str) -> list[str]:
    """Find nothing, whatever the words."""
    return []


@AGENT.tool_plain
async def wait() -> str:
    """Take too long."""
    await asyncio.sleep(60)
    return "done"
