"""The peer: the same agent under agno's own API, its conversations in PostgreSQL."""

import os
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from agno.agent import Agent
from agno.db.postgres import AsyncPostgresDb
from agno.models.openai import OpenAIChat
from agno.os import AgentOS


def current_time(time_zone: str = "UTC") -> str:
    """Tell the date and time of now.

    Args:
        time_zone: an IANA name, for example Europe/Berlin.
    """
    zone = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    return datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


agent = Agent(
    id="assistant",
    name="assistant",
    model=OpenAIChat(id=os.environ.get("MODEL", "fake"), base_url=os.environ["OPENAI_BASE_URL"]),
    db=AsyncPostgresDb(db_url=os.environ["DATABASE_URL"]),
    instructions="You are a helpful assistant. Answer in the language of the question, briefly and plainly. Say so when you don't know something.",
    tools=[current_time],
    add_history_to_context=True,
    telemetry=False,
)
app = AgentOS(agents=[agent], telemetry=False).get_app()
