"""An MCP server over HTTP, made with the protocol's own package, and one that keeps silent, for chassis/tests/test_mcp.py."""

import asyncio
import os
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

server = MCPServer("shop")


@server.tool()
def echo(text: str) -> str:
    """Say the same."""
    return f"shop says {text}"


@server.tool()
def pay(amount: int) -> str:
    """Pay."""
    return f"Paid {amount}."


@server.tool()
def hidden() -> str:
    """Nobody is to call this."""
    return "hidden"


@server.tool()
async def slow(seconds: float) -> str:
    """Take some time."""
    await asyncio.sleep(seconds)
    return "done"


@server.tool()
def broken() -> str:
    """Fail."""
    raise ValueError("It is broken.")


@server.tool()
def refuse() -> str:
    """Fail with an error of the protocol, under a code that its own package uses too."""
    raise MCPError(-32000, "There is no account 17.")


_app = server.streamable_http_app()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Let nobody in but who shows the token."""
    headers: dict[bytes, Any] = dict(scope.get("headers", ()))
    shown = headers.get(b"authorization", b"").decode()
    if scope["type"] == "http" and shown != f"Bearer {os.environ['SHOP_TOKEN']}":
        await Response("no", 401)(scope, receive, send)
        return
    await _app(scope, receive, send)
