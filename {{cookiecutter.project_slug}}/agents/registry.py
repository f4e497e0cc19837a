"""The agents that the API serves, found in this folder.

A module or package here that sets `AGENT` is one. Its name is the agent's id in the API; the agent's own
`name` and `description` are for people. No other file needs to know of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic_ai import Agent

from agents.deps import Deps

FOLDER = Path(__file__).parent
SETS_AGENT = re.compile(r"^AGENT\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent and how people are told of it."""

    id: str
    name: str
    description: str
    agent: Agent[Deps, Any]


def _find() -> Iterator[RegisteredAgent]:
    # The text is looked at first, because the modules that run agents import this one.
    for path in sorted((*FOLDER.glob("*.py"), *FOLDER.glob("*/__init__.py"))):
        if SETS_AGENT.search(path.read_text(encoding="utf-8")):
            module = path.stem if path.parent == FOLDER else path.parent.name
            agent: Agent[Deps, Any] = import_module(f"agents.{module}").AGENT
            yield RegisteredAgent(module, agent.name or module, agent.description or "", agent)


AGENTS: Mapping[str, RegisteredAgent] = {entry.id: entry for entry in _find()}
