"""The agents that the API serves, by their id in its paths."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_ai import Agent

from agents.assistant import assistant


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent and how people are told of it."""

    id: str
    name: str
    description: str
    agent: Agent[None, str]


AGENTS: Mapping[str, RegisteredAgent] = {
    entry.id: entry
    for entry in (
        RegisteredAgent("assistant", "Assistant", "Answers questions and knows the time.", assistant),
    )
}
