"""Tools of MCP servers (https://modelcontextprotocol.io), for the agents that name them."""

from chassis.mcp.servers import mcp_server

__all__ = ["mcp_server"]
