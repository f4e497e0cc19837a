"""Which model answers: the request's, the agent's own or the service's, and who stands in for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from sqlalchemy import URL

from chassis.agents.choice import Models
from chassis.agents.settings import AgentSettings
from chassis.errors import RunError
from chassis.settings import RuntimeEnv
from chassis.testing.client import SSE, ask, check_problem, events
from chassis.tests.service import serving

SETTINGS = {
    "AGENT_MODEL": "openai-chat:first",
    "AGENT_MODELS": "openai-chat:first, openai-chat:other,openai-chat:fail-down",
    "AGENT_FALLBACK_MODELS": "openai-chat:fail-quota,openai-chat:spare",
}


@pytest.fixture(scope="module")
def service(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    with serving(logs / "models", database, **(model | SETTINGS)) as client:
        yield client


def test_a_request_names_one_of_those_on_offer(service: httpx.Client, provider: httpx.Client) -> None:
    offered = service.get("/v1/agents").json()["models"]
    assert offered == ["openai-chat:first", "openai-chat:other", "openai-chat:fail-down"]
    assert ask(service, "hello").json()["model"] == "openai:first"
    run = ask(service, "hello", headers={"X-Model": "openai-chat:other"}).json()
    assert run["model"] == "openai:other"
    assert provider.get("/last").json()["model"] == "other"
    assert service.get(f"/v1/runs/{run['run_id']}").json()["model"] == "openai:other"
    refused = ask(service, "hello", headers={"X-Model": "openai-chat:dear"})
    problem = check_problem(refused, 422, "isn't among those that a request may choose: openai-chat:first, ")
    assert problem["code"] == "model_not_found"
    # The same request with another model is another request.
    keyed = {"Idempotency-Key": "a model"}
    ask(service, "hello", headers=keyed)
    check_problem(
        ask(service, "hello", headers=keyed | {"X-Model": "openai-chat:other"}), 422, "another request"
    )


def test_without_an_offer_no_request_may_choose(locked: httpx.Client, scripted: httpx.Client) -> None:
    assert scripted.get("/v1/agents").json()["models"] == []
    check_problem(ask(scripted, "hello", headers={"X-Model": "openai-chat:fake"}), 422, "choose: none")


@pytest.mark.parametrize("streamed", [False, True])
def test_another_stands_in(service: httpx.Client, streamed: bool) -> None:
    """The first is down and the second out of quota, so the third answers, and the run says so."""
    headers = {"X-Model": "openai-chat:fail-down", **(SSE if streamed else {})}
    answer = ask(service, "hello", headers=headers)
    if streamed:
        told = events(answer)
        assert told[0][1]["model"] == "openai:fail-down"
        run = told[-1][1]
    else:
        run = answer.json()
    assert run["model"] == "openai:spare"
    assert run["output"] == "Heard 1: hello"
    assert service.get(f"/v1/runs/{run['run_id']}").json()["model"] == "openai:spare"


@pytest.mark.parametrize(
    ("words", "status", "detail"),
    [
        ("fail down", 503, "overloaded or down"),
        ("fail rate", 503, "allows no more requests"),
        ("fail server", 502, "refused the request or failed"),
        ("fail request", 400, "refused the request"),
        ("fail key", 502, "refuses the service's key"),
        ("fail length", 400, "too long"),
    ],
)
def test_where_all_fail_the_first_says_why(
    service: httpx.Client, words: str, status: int, detail: str
) -> None:
    check_problem(ask(service, words), status, detail)


WORDS = {"id": "1", "role": "user", "content": "hello"}
# What the other interfaces are sent, by their paths. Those that an answer left out aren't there.
OTHERS: dict[str, dict[str, Any]] = {
    "/v1/agents/{agent_id}/vercel": {
        "trigger": "submit-message",
        "id": "models-vercel",
        "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}],
    },
    "/v1/agents/{agent_id}/ag-ui": {
        "threadId": "models-ag-ui",
        "runId": "r",
        "state": None,
        "messages": [WORDS],
        "tools": [],
        "context": [],
        "forwardedProps": None,
    },
    "/v1/chat/completions": {"model": "assistant", "messages": [WORDS]},
    "/v1/responses": {"model": "assistant", "input": "hello"},
}


def test_every_interface_takes_the_wish(service: httpx.Client, provider: httpx.Client) -> None:
    there = service.get("/openapi.json").json()["paths"]
    assert "/v1/agents/{agent_id}/vercel" in there
    for template, body in OTHERS.items():
        if template in there:
            path = template.format(agent_id="assistant")
            refused = service.post(path, json=body, headers={"X-Model": "openai-chat:dear"})
            check_problem(refused, 422, "may choose")
            answer = service.post(path, json=body, headers={"X-Model": "openai-chat:other"})
            assert answer.is_success, answer.text
            assert provider.get("/last").json()["model"] == "other"


@pytest.fixture
def with_key(model: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings, also where the provider's own library looks for them."""
    for name, value in model.items():
        monkeypatch.setenv(name, value)
    return model


def models(model: dict[str, str], **settings: str) -> Models:
    env = model | settings
    return Models("openai-chat:default", AgentSettings.from_env(env), RuntimeEnv.PRD, env)


def test_an_agents_own_model_counts(with_key: dict[str, str]) -> None:
    own = Agent("openai-chat:own", defer_model_check=True)
    made = TestModel()
    for agent, wanted, expected in (
        (Agent(), None, "openai:fake"),
        (own, None, "openai:own"),
        (own, "openai-chat:wanted", "openai:wanted"),
        (Agent(made), None, made.model_id),
        (Agent(made), "openai-chat:wanted", "openai:wanted"),
    ):
        known = models(with_key, AGENT_MODELS="openai-chat:wanted")
        assert known.choose(agent, wanted).model_id == expected
        assert known.choose(agent, wanted) is known.choose(agent, wanted)
    without = {name: value for name, value in with_key.items() if name != "AGENT_MODEL"}
    assert models(without).choose(Agent(), None).model_id == "openai:default"
    # What a test puts in place answers for all.
    instead = Models("openai:x", AgentSettings.from_env({}), RuntimeEnv.PRD, {}, instead=made)
    assert instead.choose(own, None) is made


def test_without_a_key_the_reason_is_told(caplog: pytest.LogCaptureFixture, with_key: dict[str, str]) -> None:
    known = Models("openai:x", AgentSettings.from_env({}), RuntimeEnv.PRD, {})
    with pytest.raises(RunError, match="set OPENAI_API_KEY"):
        known.choose(Agent(), None)
    # One that can't stand in is left out, which the log tells.
    first = models(with_key, AGENT_FALLBACK_MODELS="anthropic:claude").choose(Agent(), None)
    assert first.model_id == "openai:fake"
    assert "anthropic:claude can't stand in" in caplog.text


@pytest.mark.parametrize("name", ["AGENT_MODELS", "AGENT_FALLBACK_MODELS"])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: gpt can't be used: write PROVIDER:MODEL"):
        AgentSettings.from_env({name: "openai:x,gpt"})


def test_a_server_of_ones_own_needs_no_key(database: URL, logs: Path, model: dict[str, str]) -> None:
    """Any that speaks OpenAI's protocol, by its address: vLLM, Ollama and others."""
    local = {"OPENAI_BASE_URL": model["OPENAI_BASE_URL"], "AGENT_MODEL": "openai-chat:fake"}
    with serving(logs / "local", database, **local) as client:
        answer = ask(client, "hello").json()
        assert (answer["output"], answer["model"]) == ("Heard 1: hello", "openai:fake")
        assert events(ask(client, "hello", headers=SSE))[-1][1]["output"] == "Heard 1: hello"
