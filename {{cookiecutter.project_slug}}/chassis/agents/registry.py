"""The agents of a package: each module or package in it that sets `AGENT` is one, under its own name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Annotated, Any

from pydantic_ai import Agent

from chassis.agents.approval import output_type_of_runs
from chassis.agents.deps import Deps
from chassis.http.dependencies import from_state


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent and how people are told of it."""

    id: str
    name: str
    description: str
    agent: Agent[Deps, Any]
    # What its runs may end with, where that isn't the agent's own: see chassis/agents/approval.py.
    output_type: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_type", output_type_of_runs(self.id, self.agent))


Agents = Mapping[str, RegisteredAgent]
AgentsOf = Annotated[Agents, from_state("agents")]


def find_agents(package: ModuleType) -> Agents:
    """Import the package's modules and return the agents by their ids, which are the modules' names."""
    modules = {
        found.name: import_module(f"{package.__name__}.{found.name}")
        for found in iter_modules(package.__path__)
    }
    agents = {name: module.AGENT for name, module in modules.items() if hasattr(module, "AGENT")}
    return {
        name: RegisteredAgent(name, agent.name or name, agent.description or "", agent)
        for name, agent in agents.items()
    }
