"""An agent whose tool needs a person's approval."""

from datetime import date
from pathlib import Path

from pydantic_ai import Agent

from chassis.agents.deps import Deps

AGENT = Agent(name="Clerk", description="Pays what one lets it pay.", deps_type=Deps)


@AGENT.tool_plain(requires_approval=True)
def pay(amount: int, ledger: str, due: date | None = None) -> str:
    """Write a payment into a ledger."""
    with Path(ledger).open("a") as file:
        file.write(f"{amount}\n")
    return f"Paid {amount}."


@AGENT.tool_plain
def look(ledger: str) -> str:
    """Read a ledger."""
    return Path(ledger).read_text()
