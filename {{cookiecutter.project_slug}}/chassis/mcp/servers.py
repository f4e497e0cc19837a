"""MCP servers as toolsets: what pydantic-ai brings, with limits, an allow-list, approval and words for callers."""

import os
import shutil
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from pydantic_ai import ModelRetry, RunContext, ToolFailed
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from chassis.agents.deps import Deps
from chassis.errors import RunError
from chassis.mcp.config import FILE, ServerConfig, read_server
from chassis.settings import SettingsError

# What decides on a call is passed on.
OURS = (RunError, ModelRetry, ToolFailed, ApprovalRequired, CallDeferred)
RETRY_SECONDS = 5


def mcp_server(name: str, file: Path = FILE) -> AbstractToolset[Deps]:
    """Return the tools of a server that `agents/mcp.json` describes, for `Agent(toolsets=[…])`.

    Their names begin with the server's: `time_convert`. Nothing is connected before a run needs it, and then for as
    long as runs do; a process of its own that a server is stays for the next.

    Raises:
        SettingsError: if it isn't described so that it can be used, or the package isn't installed.
    """
    config = read_server(name, file)
    tools: AbstractToolset[Deps] = _Server(_toolset(name, config), name, config.call_seconds)
    if config.tools is not None:
        allowed = frozenset(config.tools)
        tools = tools.filtered(lambda _, tool: tool.name in allowed)
    if config.approval:
        tools = tools.approval_required(lambda _, tool, __: config.asks(tool.name))
    return tools.prefixed(name)


def _toolset(name: str, config: ServerConfig) -> AbstractToolset[Deps]:
    # Its log has a form of its own, and quotes what servers say.
    os.environ.setdefault("FASTMCP_LOG_ENABLED", "false")
    try:
        # Here, since it takes a second, which is for those who have a server.
        from fastmcp.client.transports import StdioTransport
        from pydantic_ai.mcp import MCPToolset
    except ImportError:
        raise SettingsError(
            f"The MCP server {name!r} needs a package: uv add 'pydantic-ai-slim[mcp]'"
        ) from None
    limits: dict[str, Any] = {
        "init_timeout": config.start_seconds,
        "read_timeout": config.call_seconds,
        # The model is told, and may go another way. Nothing is called again by itself.
        "tool_error_behavior": "failed",
    }
    if config.url is not None:
        return MCPToolset(config.url, id=name, headers=config.headers or None, **limits)
    command, *args = _bound_to_us([str(config.command), *config.args])
    cwd = None if config.cwd is None else str(config.cwd)
    # Of our own environment it gets no more than the path and the like.
    return MCPToolset(StdioTransport(command, args, env=config.env, cwd=cwd), id=name, **limits)


def _bound_to_us(command: list[str]) -> list[str]:
    """Make the process end with ours, however that ends, where the platform can."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


@dataclass
class _Server(WrapperToolset[Deps]):
    """Says whose fault it is. Errors of a server may quote what it was sent, so no word of them is repeated."""

    name: str
    call_seconds: float

    async def __aenter__(self) -> Self:
        try:
            await super().__aenter__()
        except Exception as error:
            raise self._away() from error
        return self

    async def get_tools(self, ctx: RunContext[Deps]) -> dict[str, ToolsetTool[Deps]]:
        """Return its tools."""
        try:
            return await super().get_tools(ctx)
        except Exception as error:
            raise self._away() from error

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Deps], tool: ToolsetTool[Deps]
    ) -> Any:
        """Call a tool. The model is told where that doesn't work."""
        try:
            return await super().call_tool(name, tool_args, ctx, tool)
        except OURS:
            raise
        except Exception as error:
            raise ToolFailed(
                f"The server of this tool gave no answer, or none within {self.call_seconds:g} seconds. "
                "Whether the call was carried out isn't known."
            ) from error

    def _away(self) -> RunError:
        detail = f"The MCP server {self.name!r}, whose tools the agent needs, can't be reached."
        return RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
