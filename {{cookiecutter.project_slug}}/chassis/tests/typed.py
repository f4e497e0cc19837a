"""A service whose agents answer with more than text."""

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput

from chassis.agents.deps import Deps
from chassis.agents.registry import RegisteredAgent
from chassis.app import create_app


class Part(BaseModel):
    """A part of an order."""

    name: str
    count: int = 1


class Order(BaseModel):
    """An order, with fields in no order of a sort, and each kind of value."""

    zone: str
    a: float
    urgent: bool
    done: bool
    nothing: str | None
    tags: list[str]
    none: list[str]
    parts: list[Part]
    inner: dict[str, str | dict[str, str]]
    level: str = "normal"


def shout(words: str) -> str:
    """Make the output of what the model says."""
    return words.upper()


AGENTS = {
    "orders": Agent(name="Orders", deps_type=Deps, output_type=Order),
    "native": Agent(name="Native", deps_type=Deps, output_type=NativeOutput(Order)),
    "list": Agent(name="List", deps_type=Deps, output_type=list[str]),
    "number": Agent(name="Number", deps_type=Deps, output_type=int),
    "made": Agent(name="Made", deps_type=Deps, output_type=[shout]),
}
app = create_app(
    agents={
        name: RegisteredAgent(name, str(agent.name), f"Answers with {name}.", agent)
        for name, agent in AGENTS.items()
    },
    default_model="openai:gpt-6.1-terra",
)
