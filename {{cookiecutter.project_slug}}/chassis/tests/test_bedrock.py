"""Models on AWS Bedrock, by AWS's own client over HTTP; only Bedrock itself is a stand-in."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

pytest.importorskip("boto3", reason="the answer was another provider")

from pydantic_ai import Agent
from pydantic_ai.messages import BinaryContent
from pydantic_ai.models.bedrock import BedrockConverseModel

from chassis.agents.models import NoModelError, resolve_model
from chassis.runs.errors import explain
from chassis.settings import RuntimeEnv
from chassis.testing.client import RUNS, SSE, ask, check_problem, events
from chassis.testing.service import HIDDEN, Server, running
from chassis.tests.files import upload
from chassis.tests.service import create_key, serving

MODEL = "bedrock:global.anthropic.claude-sonnet-5-5"
# No machine is asked for the role that it may have.
NOWHERE = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/", "AWS_SHARED_CREDENTIALS_FILE": "/"}
KEY = {"AWS_ACCESS_KEY_ID": "MINE", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.fixture(scope="module")
def bedrock(logs: Path) -> Iterator[Server]:
    with running(logs / "bedrock", "chassis.tests.bedrock:app") as server:
        yield server


@pytest.fixture(scope="module")
def settings(bedrock: Server) -> dict[str, str]:
    where = {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.address}
    return {"AGENT_MODEL": MODEL, **where, **NOWHERE}


@pytest.fixture(scope="module")
def client(database: URL, logs: Path, settings: dict[str, str]) -> Iterator[httpx.Client]:
    with serving(logs / "with-key", database, **settings, **KEY) as client:
        yield client


def last_seen(bedrock: Server) -> dict[str, str]:
    seen: list[dict[str, str]] = httpx.get(f"{bedrock.address}/seen").json()
    return seen[-1]


def test_it_answers_at_once_and_streamed(client: httpx.Client, bedrock: Server) -> None:
    answer = ask(client, "Grüße").json()
    assert (answer["output"], answer["model"]) == ("Heard: Grüße", MODEL)
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (3, 5)
    assert last_seen(bedrock)["path"].startswith(f"/model/{MODEL.partition(':')[2]}/converse")
    streamed = events(ask(client, "one two three", answer["conversation_id"], headers=SSE))
    assert [data["delta"] for name, data in streamed if name == "text"] == [
        "Heard: ",
        "one ",
        "two ",
        "three",
    ]
    assert streamed[-1][1]["output"] == "Heard: one two three"
    signed = last_seen(bedrock)
    assert signed["path"].endswith("/converse-stream")
    assert re.match(r"AWS4-HMAC-SHA256 Credential=MINE/\d{8}/eu-central-1/bedrock/", signed["authorization"])


def test_it_reads_json(client: httpx.Client) -> None:
    file = upload(client, b'{"a": 1}', "a.json")
    assert client.get(f"/v1/attachments/{file}").json()["media_type"] == "application/json"
    answer = client.post(RUNS, json={"input": "look", "attachments": [file]})
    assert answer.json().get("output") == "Heard: look", answer.text
    again = ask(client, "again", answer.json()["conversation_id"])
    assert again.json().get("output") == "Heard: again", again.text


def test_a_kind_of_file_that_it_does_not_read(
    settings: dict[str, str], environment: pytest.MonkeyPatch
) -> None:
    for name, value in (settings | KEY).items():
        environment.setenv(name, value)
    with pytest.raises(NotImplementedError) as caught:
        Agent(resolve_model(MODEL, RuntimeEnv.DEV)).run_sync(
            [BinaryContent(b"{}", media_type="application/json")]
        )
    failure = explain(caught.value)
    assert (failure.status, failure.code, failure.final) == (422, "invalid_request", True)
    assert "send another kind" in failure.detail


@pytest.mark.parametrize("headers", [{}, SSE], ids=["at once", "streamed"])
def test_it_calls_tools(client: httpx.Client, headers: dict[str, str]) -> None:
    response = ask(client, "time", headers=headers)
    output = (events(response)[-1][1] if headers else response.json())["output"]
    assert output.startswith("The tool said: ")
    assert "UTC" in output


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        ("ThrottlingException", 503, "allows no more requests"),
        ("AccessDeniedException", 502, "refuses the service's key"),
        ("ServiceUnavailableException", 503, "overloaded or down"),
    ],
)
def test_what_it_refuses(client: httpx.Client, failure: str, status: int, words: str) -> None:
    document = check_problem(ask(client, f"fail {failure}"), status, words)
    assert "secret" not in str(document)


def test_in_production_by_a_containers_role_without_any_key(
    database: URL, logs: Path, settings: dict[str, str], bedrock: Server
) -> None:
    given = {"RUNTIME_ENV": "prd", "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{bedrock.address}/role"}
    with serving(logs / "by-role", database, **settings, **given) as client:
        client.headers["Authorization"] = f"Bearer {create_key(database)}"
        assert ask(client, "hello").json()["output"] == "Heard: hello"
    assert last_seen(bedrock)["authorization"].startswith("AWS4-HMAC-SHA256 Credential=ROLE/")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without anything of the developer's, but with a region."""
    for name in filter(HIDDEN.fullmatch, list(os.environ)):
        monkeypatch.delenv(name)
    for name, value in {**NOWHERE, "AWS_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_in_development_only_a_key_or_a_profile_counts(environment: pytest.MonkeyPatch) -> None:
    """Not a role that the container may have for something else."""
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/role")
    assert resolve_model(MODEL, RuntimeEnv.DEV).model_name == "demonstration"


def test_a_bedrock_api_key_is_sent_as_a_token(environment: pytest.MonkeyPatch) -> None:
    """By TLS alone, AWS's client sees to that: so what it would send is looked at, and not sent."""
    environment.setenv("AWS_BEARER_TOKEN_BEDROCK", "abc")
    model = resolve_model(MODEL, RuntimeEnv.PRD)
    assert isinstance(model, BedrockConverseModel)

    def look(request: Any, **_: Any) -> None:
        raise InterruptedError(f"{request.url} {request.headers['Authorization']}")

    model.client.meta.events.register("before-send.bedrock-runtime", look)
    words: Any = [{"role": "user", "content": [{"text": "hello"}]}]
    with pytest.raises(InterruptedError, match=r"^https://bedrock-runtime\.eu-central-1\..*Bearer abc"):
        model.client.converse(modelId=model.model_name, messages=words)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "there is no role to run as: set AWS_PROFILE, or AWS_BEARER_TOKEN_BEDROCK"),
        ({"AWS_PROFILE": "", "AWS_BEARER_TOKEN_BEDROCK": ""}, "there is no role to run as"),
        ({**KEY, "AWS_REGION": ""}, "set AWS_REGION"),
        ({"AWS_PROFILE": "gone"}, "profile (gone) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "MINE"}, "Partial credentials"),
    ],
    ids=str,
)
def test_what_is_missing_is_told(
    environment: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(NoModelError, match=re.escape(words)):
        resolve_model(MODEL, RuntimeEnv.PRD)
