"""The web search of a model's provider: asked for where there is one, and a clear error where there is none."""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from chassis.agents.deps import Deps
from chassis.database.engine import Sessions
from chassis.testing.client import SSE, check_problem, events
from chassis.tests.agents import scout

RUNS = "/v1/agents/scout/runs"


@pytest.mark.anyio
async def test_the_provider_is_asked_to_search(sessions: Sessions) -> None:
    asked: list[dict[str, Any]] = []

    class Provider(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_error(400)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        provider = OpenAIProvider(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
        model = OpenAIResponsesModel("gpt-5", provider=provider)
        deps = Deps(sessions, uuid.uuid4(), None, "somebody")
        with pytest.raises(ModelHTTPError):
            await scout.AGENT.run("What is new?", model=model, deps=deps)
        server.shutdown()
    assert [tool["type"] for tool in asked[0]["tools"]] == ["web_search"]


def test_a_model_that_has_none(scripted: httpx.Client) -> None:
    refused = scripted.post(RUNS, json={"input": "What is new?"})
    check_problem(refused, 500, "such as web search: choose another model")
    assert refused.headers["X-Should-Retry"] == "false"
    *_, (name, problem) = events(scripted.post(RUNS, json={"input": "What is new?"}, headers=SSE))
    assert (name, problem["status"]) == ("error", 500)


def test_the_demonstration_goes_without(dev: httpx.Client) -> None:
    assert "demonstration" in dev.post(RUNS, json={"input": "What is new?"}).json()["output"]
