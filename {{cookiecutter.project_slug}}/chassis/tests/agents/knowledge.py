"""An agent that answers from documents."""

from pydantic_ai import Agent

from chassis.agents.deps import Deps
from chassis.knowledge.search import search_documents

AGENT = Agent(
    name="Knowledge", description="Answers from documents.", deps_type=Deps, tools=[search_documents]
)
