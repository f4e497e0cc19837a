"""Tools of MCP servers: one from a registry over stdio, one over HTTP, some that are away, and what is never let through."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import URL

from chassis.mcp import mcp_server
from chassis.mcp.config import read_server
from chassis.runs.arguments import what_is_wrong
from chassis.settings import SettingsError
from chassis.testing.client import SSE, check_problem, release, wait_for
from chassis.testing.service import Server, clean_env, running, service, serving

APP = "chassis.tests.mcp_app:app"
TOKEN = "s3cret-of-the-shop"
CLOCK = [sys.executable, "-m", "mcp_server_time"]


@pytest.fixture(scope="module")
def shop(logs: Path) -> Iterator[Server]:
    with running(logs / "shop", "chassis.tests.mcp_shop:app", SHOP_TOKEN=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, shop: Server) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "mcp.json"
    servers = {
        "time": {"command": CLOCK[0], "args": CLOCK[1:]},
        "shop": {
            "type": "http",
            "url": "${SHOP_URL}/mcp",
            "headers": {"Authorization": "Bearer ${SHOP_TOKEN}"},
            "tools": ["echo", "pay", "slow", "broken", "refuse"],
            "approval": ["pay"],
            "callSeconds": 2,
        },
        "mute": {"command": "sleep", "args": ["1000"], "startSeconds": 1},
    }
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


@pytest.fixture(scope="module")
def variables(file: Path, shop: Server, model: dict[str, str]) -> dict[str, str]:
    return {"TEST_MCP_FILE": str(file), "SHOP_URL": shop.address, "SHOP_TOKEN": TOKEN, **model}


@pytest.fixture(scope="module")
def with_tools(database: URL, logs: Path, variables: dict[str, str]) -> Iterator[httpx.Client]:
    with serving(logs / "mcp", database, APP, **variables) as client:
        yield client
    assert TOKEN not in (logs / "mcp").read_text()


def ask(client: httpx.Client, agent: str, words: str) -> httpx.Response:
    return client.post(f"/v1/agents/{agent}/runs", json={"input": words}, timeout=60)


def call(client: httpx.Client, agent: str, tool: str, **arguments: Any) -> str:
    answer = ask(client, agent, f"call {tool} {json.dumps(arguments)}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["output"])


def test_over_stdio(with_tools: httpx.Client) -> None:
    for _ in range(2):  # its process is still there
        said = call(with_tools, "clock", "time_get_current_time", timezone="Europe/Berlin")
        assert "Europe/Berlin" in said
        assert "datetime" in said


def test_over_http(with_tools: httpx.Client) -> None:
    assert call(with_tools, "shop", "shop_echo", text="hello") == "The tool said: shop says hello"
    assert call(with_tools, "shop", "shop_sell") == "The tool said: sold"


def test_what_is_not_on_the_list_is_not_there(with_tools: httpx.Client, provider: httpx.Client) -> None:
    ask(with_tools, "shop", "hello")
    offered = {tool["function"]["name"] for tool in provider.get("/last").json()["tools"]}
    assert offered == {"shop_echo", "shop_pay", "shop_slow", "shop_broken", "shop_refuse", "shop_sell"}
    assert "hidden" not in ask(with_tools, "shop", "call shop_hidden {}").text.replace("shop_hidden", "")


def test_a_name_that_the_agent_has_is_not_shadowed(with_tools: httpx.Client, logs: Path) -> None:
    check_problem(ask(with_tools, "both", "call time_convert_time {}"), 500)
    assert "time_convert_time" in (logs / "mcp").read_text()


def test_the_model_is_told_what_fails(with_tools: httpx.Client) -> None:
    assert "broken" in call(with_tools, "shop", "shop_broken")
    # It has one try more.
    assert "There is no account 17." in ask(with_tools, "shop", "call shop_refuse {}").text
    began = time.monotonic()
    assert "timed out" in call(with_tools, "shop", "shop_slow", seconds=30)
    assert time.monotonic() - began < 25
    # And the next call finds the server as before.
    assert "shop says on" in call(with_tools, "shop", "shop_echo", text="on")


def test_approval(with_tools: httpx.Client) -> None:
    run = ask(with_tools, "shop", 'call shop_pay {"amount": 3}').json()
    assert (run["status"], run["calls"][0]["name"]) == ("waiting", "shop_pay")

    def decide(**arguments: Any) -> httpx.Response:
        decision = {"id": run["calls"][0]["id"], "approve": True, "arguments": arguments}
        return with_tools.post(f"/v1/runs/{run['run_id']}/decisions", json={"decisions": [decision]})

    check_problem(decide(amount="x"), 422, "the tool 'shop_pay': amount: 'x' is not of type 'integer'")
    check_problem(decide(), 422, "'amount' is a required property")
    done = decide(amount=4).json()
    assert done["output"] == "The tool said: Paid 4."


def test_a_server_that_never_answers(with_tools: httpx.Client) -> None:
    began = time.monotonic()
    refused = ask(with_tools, "mute", "hello")
    check_problem(refused, 503, "The MCP server 'mute', whose tools the agent needs, can't be reached.")
    assert time.monotonic() - began < 20
    # Others don't notice.
    assert ask(with_tools, "plain", "hello").json()["output"] == "Heard 1: hello"


def test_a_server_that_comes_and_goes(
    database: URL, logs: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    """Away when the service starts, there, killed, and there again."""
    with running(logs / "shop-1", "chassis.tests.mcp_shop:app", SHOP_TOKEN=TOKEN) as first:
        address = first.address
    settings = variables | {"SHOP_URL": address}
    port = address.rpartition(":")[2]
    with (
        service(logs / "goes", database, APP, **settings) as server,
        httpx.Client(base_url=server.address, timeout=60) as client,
    ):
        check_problem(ask(client, "shop", "hello"), 503, "'shop'")
        for number in (2, 3):
            log = logs / f"shop-{number}"
            with running(log, "chassis.tests.mcp_shop:app", "--port", port, SHOP_TOKEN=TOKEN):
                assert "shop says hi" in call(client, "shop", "shop_echo", text="hi")
            check_problem(ask(client, "shop", "hello"), 503, "'shop'")


@pytest.mark.skipif(sys.platform != "linux", reason="It looks into /proc.")
def test_its_process_is_started_anew(database: URL, logs: Path, variables: dict[str, str]) -> None:
    with (
        service(logs / "anew", database, APP, **variables) as server,
        httpx.Client(base_url=server.address, timeout=60) as client,
    ):
        clock = clock_of(server, client)
        os.kill(clock, signal.SIGKILL)
        wait_for(lambda: not alive(clock))
        assert clock_of(server, client) != clock


@pytest.mark.skipif(sys.platform != "linux", reason="It looks into /proc.")
def test_it_is_started_anew_beside_a_run_that_had_it(
    database: URL, logs: Path, variables: dict[str, str], provider: httpx.Client
) -> None:
    with (
        service(logs / "beside", database, APP, **variables) as server,
        httpx.Client(base_url=server.address, timeout=60) as client,
    ):
        clock = clock_of(server, client)
        body = {"input": "hold 3 tick"}
        with client.stream("POST", "/v1/agents/clock/runs", json=body, headers=SSE) as underway:
            lines = underway.iter_lines()
            next(line for line in lines if "tick/1" in line)
            os.kill(clock, signal.SIGKILL)
            assert clock_of(server, client) != clock
            release(provider)
            assert any("tick/3" in line for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="It looks into /proc.")
def test_it_is_started_anew_in_the_midst_of_a_run(file: Path) -> None:
    steps = iter(["call", "kill", "call", "end"])

    def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        step = next(steps)
        if step == "end":
            return ModelResponse([TextPart("done")])
        if step == "kill":
            [clock] = clocks(os.getpid())
            os.kill(clock, signal.SIGKILL)
        return ModelResponse([ToolCallPart("time_get_current_time", {"timezone": "Europe/Berlin"})])

    agent = Agent(FunctionModel(think), toolsets=[mcp_server("time", file)])
    messages = agent.run_sync("").all_messages()
    first, second, third = (
        part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)
    )
    assert (first.outcome, second.outcome, third.outcome) == ("success", "failed", "success")
    assert "Whether the call was carried out isn't known" in str(second.content)


def clock_of(server: Server, client: httpx.Client) -> int:
    """The process of the clock that the service has started."""
    assert "Berlin" in call(client, "clock", "time_get_current_time", timezone="Europe/Berlin")
    [clock] = clocks(server.process.pid)
    return clock


def clocks(parent: int) -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if is_child(path.parent, parent) and b"mcp_server_time" in path.read_bytes()
    ]


def is_child(process: Path, parent: int) -> bool:
    try:
        return f"\nPPid:\t{parent}\n" in process.joinpath("status").read_text()
    except OSError:  # it has ended
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_run_that_is_cancelled_while_its_server_starts_takes_it_from_nobody(file: Path) -> None:
    def think(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("time_get_current_time", {"timezone": "Europe/Berlin"})])

    agent = Agent(FunctionModel(think), toolsets=[mcp_server("time", file)])

    async def run_beside_others() -> str:
        first = asyncio.create_task(agent.run(""))
        for seconds in (0, 0.01, 0.1, 0.1):
            other = asyncio.create_task(agent.run(""))
            await asyncio.sleep(seconds)
            other.cancel()
        return (await first).output

    assert asyncio.run(run_beside_others()) == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="It looks into /proc.")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_its_process_ends_with_the_service(
    database: URL, logs: Path, variables: dict[str, str], how: signal.Signals
) -> None:
    log = logs / f"ends-{how}"
    with service(log, database, APP, **variables) as server:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            clock = clock_of(server, client)
            assert "SHOP_TOKEN" not in Path(f"/proc/{clock}/environ").read_text()
            assert "OPENAI_API_KEY" not in Path(f"/proc/{clock}/environ").read_text()
        server.process.send_signal(how)
        server.process.wait(timeout=20)
        wait_for(lambda: not alive(clock))
    assert "Traceback" not in log.read_text()


# The file


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "isn't JSON"),
        ({}, "mcpServers: Field required"),
        ({"mcpServers": {}}, "describes no MCP server 'x'. It has: none."),
        ({"mcpServers": {"x_y": {}}}, "should match pattern"),
        ({"mcpServers": {"x": {}}}, "give either command or url"),
        ({"mcpServers": {"x": {"command": "a", "url": "http://b"}}}, "give either command or url"),
        ({"mcpServers": {"x": {"url": "http://b", "env": {"A": "b"}}}}, "env and cwd go with command"),
        ({"mcpServers": {"x": {"command": "a", "headers": {"A": "b"}}}}, "headers go with url"),
        ({"mcpServers": {"x": {"url": "file:///etc/passwd"}}}, "url: String should match"),
        ({"mcpServers": {"x": {"url": "http://b", "disabled": True}}}, "disabled: Extra inputs"),
        ({"mcpServers": {"x": {"url": "http://b", "tools": "all"}}}, "tools: Input should be"),
        ({"mcpServers": {"x": {"url": "http://b", "callSeconds": 0}}}, "callSeconds: "),
        ({"mcpServers": {"x": {"url": "http://${HOST}"}}}, "needs the variable HOST, which isn't set"),
    ],
    ids=str,
)
def test_a_file_that_can_not_be_used(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(SettingsError) as refused:
        read_server("x", path, {})
    assert words in str(refused.value)


def test_no_secret_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    entry = {"url": "nonsense ${SECRET}", "headers": {"A": ["${SECRET}"]}, "callSeconds": "${SECRET}"}
    path.write_text(json.dumps({"mcpServers": {"x": entry}}))
    with pytest.raises(SettingsError) as refused:
        read_server("x", path, {"SECRET": TOKEN})
    assert TOKEN not in str(refused.value)


def test_what_a_schema_refers_to_is_not_fetched() -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        schema = {"properties": {"x": {"$ref": f"http://127.0.0.1:{server.server_port}/schema"}}}
        assert what_is_wrong({"x": 1}, schema) == ""
        server.shutdown()
    assert asked == []


def test_variables_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    entry = {"command": "${TOOL:-uvx}", "args": ["${A}", "$B"], "env": {"KEY": "${A}${EMPTY:-}"}}
    path.write_text(json.dumps({"mcpServers": {"x": entry, "y": {"command": "${UNSET}"}}}))
    found = read_server("x", path, {"A": "1"})
    assert (found.command, found.args, found.env) == ("uvx", ["1", "$B"], {"KEY": "1"})
    with pytest.raises(SettingsError, match="isn't there"):
        read_server("x", tmp_path / "none.json", {})


# What is off costs nothing


def test_without_a_server_nothing_of_it_is_loaded() -> None:
    program = "import sys, chassis.tests.app; print([m for m in ('mcp', 'fastmcp', 'jsonschema', 'chassis.mcp') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
