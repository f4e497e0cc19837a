"""An agent that has the web search of its model's provider."""

from pydantic_ai import Agent
from pydantic_ai.capabilities import WebSearch

from chassis.agents.deps import Deps

AGENT = Agent(name="Scout", description="Searches the web.", deps_type=Deps, capabilities=[WebSearch()])
