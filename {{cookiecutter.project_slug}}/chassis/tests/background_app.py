"""A service whose agent does things that count, for tests of runs in the background.

LEDGER names the file that its tools write to, SCHEDULE a cron expression.
"""

import asyncio
import os
from pathlib import Path

from pydantic_ai import Agent, RunContext

from chassis.agents.deps import Deps
from chassis.agents.registry import RegisteredAgent
from chassis.app import Schedule, create_app
from chassis.runs.once import once

agent = Agent(deps_type=Deps)


def write(line: str) -> None:
    with Path(os.environ["LEDGER"]).open("a", encoding="utf-8") as ledger:
        ledger.write(f"{line}\n")


async def note(line: str, seconds: float) -> str:
    """Write a line at once, and take a while to come back."""
    write(line)
    await asyncio.sleep(seconds)
    return f"noted {line}"


@agent.tool
@once
async def book(ctx: RunContext[Deps], line: str, seconds: float = 0) -> str:
    """Write a line once."""
    return await note(line, seconds)


@agent.tool_plain
async def look(line: str, seconds: float = 0) -> str:
    """Write a line, as often as it is called."""
    return await note(line, seconds)


@agent.tool_plain(requires_approval=True)
async def pay(line: str, seconds: float = 0) -> str:
    """Write a line, once a person has agreed."""
    return await note(line, seconds)


@agent.tool(requires_approval=True)
@once
async def refund(ctx: RunContext[Deps], line: str, seconds: float = 0) -> str:
    """Write a line once, when a person has agreed."""
    return await note(line, seconds)


cron = os.environ.get("SCHEDULE")
app = create_app(
    agents={"assistant": RegisteredAgent("assistant", "Bookkeeper", "", agent)},
    default_model="openai:gpt-6.1-terra",
    schedules=[Schedule(name="daily", cron=cron, agent="assistant", input="say good morning")]
    if cron
    else (),
)
