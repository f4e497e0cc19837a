"""MCP servers as toolsets: what pydantic-ai brings, with limits, an allow-list, approval and words for callers."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
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
# What the protocol's package says of a connection that is gone, and of a session that a new server doesn't know. Their
# codes alone don't tell: servers use them for errors of their own.
GONE = ("Connection closed", "Session terminated")

Connector = Callable[[], AbstractToolset[Deps]]


def mcp_server(name: str, file: Path = FILE) -> AbstractToolset[Deps]:
    """Return the tools of a server that `agents/mcp.json` describes, for `Agent(toolsets=[…])`.

    Their names begin with the server's: `time_convert`. Nothing is connected before a run needs it, and each run
    connects for itself; a process of its own that a server is stays for the next, and is started anew when it ended.

    Raises:
        SettingsError: if it isn't described so that it can be used, or the package isn't installed.
    """
    config = read_server(name, file)
    connect = _connector(name, config)
    tools: AbstractToolset[Deps] = _Server(connect(), connect, name, config.call_seconds)
    if config.tools is not None:
        allowed = frozenset(config.tools)
        tools = tools.filtered(lambda _, tool: tool.name in allowed)
    if config.approval:
        tools = tools.approval_required(lambda _, tool, __: config.asks(tool.name))
    return tools.prefixed(name)


def _connector(name: str, config: ServerConfig) -> Connector:
    # Its log has a form of its own, and quotes what servers say.
    os.environ.setdefault("FASTMCP_LOG_ENABLED", "false")
    try:
        # Here, since it takes a second, which is for those who have a server.
        from pydantic_ai.mcp import MCPToolset

        from chassis.mcp.process import SharedProcess
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
        return partial(MCPToolset, config.url, id=name, headers=config.headers or None, **limits)
    command, *args = _bound_to_us([str(config.command), *config.args])
    cwd = None if config.cwd is None else str(config.cwd)
    # Of our own environment it gets no more than the path and the like.
    process = SharedProcess(command, args, env=config.env, cwd=cwd)
    return partial(MCPToolset, process, id=name, **limits)


def _bound_to_us(command: list[str]) -> list[str]:
    """Make the process end with ours, however that ends, where the platform can."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def _has_ended(error: BaseException | None) -> bool:
    """Tell whether the connection is gone, or what the server knew of it."""
    while error is not None:
        if getattr(getattr(error, "error", None), "message", None) in GONE:
            return True
        error = error.__cause__
    return False


@dataclass
class _Server(WrapperToolset[Deps]):
    """Says whose fault it is. Errors of a server may quote what it was sent, so no word of them is repeated."""

    connect: Connector
    name: str
    call_seconds: float
    connected: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)

    async def for_run(self, ctx: RunContext[Deps]) -> AbstractToolset[Deps]:
        """Return one for this run alone: what runs share would last, dead or alive, for as long as any is underway."""
        return replace(self, wrapped=self.connect())

    async def __aenter__(self) -> Self:
        try:
            await super().__aenter__()
        except Exception as error:
            raise self._away() from error
        self.connected = True
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        if not self.connected:
            return None
        self.connected = False
        return await super().__aexit__(*args)

    async def get_tools(self, ctx: RunContext[Deps]) -> dict[str, ToolsetTool[Deps]]:
        """Return its tools, after connecting anew where the server has ended since it was last asked."""
        try:
            if not self.ended:
                return await super().get_tools(ctx)
        except Exception as error:
            # It was there, or seemed to be, when the run began.
            if not _has_ended(error):
                raise self._away() from error
        await self._connect_anew()
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
        except Exception as error:
            gone = _has_ended(error)
            self.ended |= gone
            if isinstance(error, OURS) and not gone:
                raise
            raise ToolFailed(
                f"The server of this tool gave no answer, or none within {self.call_seconds:g} seconds. "
                "Whether the call was carried out isn't known."
            ) from error

    async def _connect_anew(self) -> None:
        with suppress(Exception):
            await self.__aexit__(None, None, None)
        self.wrapped = self.connect()
        self.ended = False
        await self.__aenter__()

    def _away(self) -> RunError:
        detail = f"The MCP server {self.name!r}, whose tools the agent needs, can't be reached."
        return RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
