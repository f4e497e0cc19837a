"""The form of output of an agent whose tools may need a person's approval: its own, or the calls that wait for it."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.toolsets import FunctionToolset

from chassis.agents.deps import Deps
from chassis.settings import ChassisError


class OutputTypeError(ChassisError, TypeError):
    """An agent's tools need approval, and its form of output has no place for that."""


def output_type_of_runs(name: str, agent: Agent[Deps, Any]) -> Any:
    """Return the type of output to run the agent with; None for its own.

    Raises:
        OutputTypeError: where only the agent's author can name it.
    """
    own = agent.output_type
    if DeferredToolRequests in (own if isinstance(own, Sequence) else [own]):
        return None
    asks = any(_may_ask(toolset) for toolset in agent.toolsets)
    if agent._output_validators:  # with them pydantic-ai takes no other type for a run
        if asks:
            raise OutputTypeError(
                f"The agent {name!r} has an output validator and tools that may need approval: give it "
                "output_type=[..., DeferredToolRequests]."
            )
        return None
    # Of a text it costs nothing, and so its tools may raise ApprovalRequired too. Another type is read anew for each run.
    return [own, DeferredToolRequests] if asks or own is str else None


def _may_ask(toolset: Any) -> bool:
    if isinstance(toolset, FunctionToolset):
        return any(tool.requires_approval for tool in toolset.tools.values())
    return True
