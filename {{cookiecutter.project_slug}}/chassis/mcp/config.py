"""`agents/mcp.json`: which MCP servers there are, in the form that people know from other clients."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from chassis.settings import WORKSPACE, SettingsError

FILE = WORKSPACE / "agents" / "mcp.json"
VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
# What a tool's name begins with, so without the character that ends it there.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")]


class ServerConfig(BaseModel):
    """An entry of `mcpServers`. A member that nobody knows is refused, as a typing error must not open anything."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)

    type: Literal["stdio", "http", "streamable-http"] | None = None
    command: str | None = Field(None, min_length=1)
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: Path | None = None
    url: str | None = Field(None, pattern="^https?://")
    headers: dict[str, str] = {}
    tools: list[str] | None = Field(None, description="those that may be called; without it all")
    approval: bool | list[str] = Field(False, description="whether, or which, need a person's approval")
    start_seconds: float = Field(10, gt=0, description="to connect and to say hello")
    call_seconds: float = Field(60, gt=0, description="to answer a call")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.url is None and self.headers:
            raise ValueError("headers go with url")
        if self.command is None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd go with command")
        return self

    def asks(self, tool: str) -> bool:
        """Tell whether a call of the tool needs a person's approval."""
        return self.approval if isinstance(self.approval, bool) else tool in self.approval


class _File(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    mcp_servers: dict[Name, dict[str, Any]] = Field(alias="mcpServers")


def read_server(name: str, file: Path = FILE, env: Mapping[str, str] = os.environ) -> ServerConfig:
    """Return the entry of this name, with `${VARIABLE}` and `${VARIABLE:-default}` filled in.

    Raises:
        SettingsError: if there is none, or it can't be used. No value is repeated, as it may be a secret.
    """
    try:
        servers = _File.model_validate(json.loads(file.read_text(encoding="utf-8"))).mcp_servers
    except FileNotFoundError:
        raise SettingsError(
            f"The MCP server {name!r} is to be described in {file}, which isn't there."
        ) from None
    except ValidationError as error:
        raise SettingsError(f"{file}: {_words(error)}") from None
    except ValueError as error:
        raise SettingsError(f"{file} isn't JSON: {error}") from None
    if name not in servers:
        raise SettingsError(
            f"{file} describes no MCP server {name!r}. It has: {', '.join(servers) or 'none'}."
        )
    try:
        return ServerConfig.model_validate(_filled(servers[name], name, env))
    except ValidationError as error:
        raise SettingsError(f"{file}, server {name!r}: {_words(error)}") from None


def _filled(value: Any, server: str, env: Mapping[str, str]) -> Any:
    def find(match: re.Match[str]) -> str:
        found = env.get(match["name"], match["default"])
        if found is None:
            raise SettingsError(
                f"The MCP server {server!r} needs the variable {match['name']}, which isn't set."
            )
        return found

    if isinstance(value, str):
        return VARIABLE.sub(find, value)
    if isinstance(value, dict):
        return {key: _filled(item, server, env) for key, item in value.items()}
    return [_filled(item, server, env) for item in value] if isinstance(value, list) else value


def _words(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors()
    )
