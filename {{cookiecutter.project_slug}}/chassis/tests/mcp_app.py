"""The service with agents that have tools of MCP servers, for chassis/tests/test_mcp.py."""

import os
from pathlib import Path

from pydantic_ai import Agent

from chassis.agents.deps import Deps
from chassis.agents.registry import RegisteredAgent
from chassis.app import create_app
from chassis.mcp import mcp_server

FILE = Path(os.environ["TEST_MCP_FILE"])
SERVERS = {"plain": [], "clock": ["time"], "shop": ["shop"], "both": ["time", "shop"], "mute": ["mute"]}


def agent_with(servers: list[str]) -> Agent[Deps, str]:
    return Agent(deps_type=Deps, toolsets=[mcp_server(name, FILE) for name in servers])


MADE = {name: agent_with(servers) for name, servers in SERVERS.items()}


@MADE["shop"].tool_plain
def shop_sell() -> str:
    """Do something of the agent's own."""
    return "sold"


@MADE["both"].tool_plain
def time_convert_time() -> str:
    """Have the name of a server's tool."""
    return "mine"


app = create_app(
    agents={name: RegisteredAgent(name, name, "", agent) for name, agent in MADE.items()},
    default_model="openai:gpt-6.1-terra",
)
