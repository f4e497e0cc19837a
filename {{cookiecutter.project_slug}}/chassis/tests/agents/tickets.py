"""An agent that answers with a typed record."""

from pydantic import BaseModel, Field
from pydantic_ai import Agent

from chassis.agents.deps import Deps


class Ticket(BaseModel):
    """What somebody wants."""

    title: str = Field(max_length=120)
    summary: str


AGENT = Agent(name="Tickets", description="Makes records.", deps_type=Deps, output_type=Ticket)
