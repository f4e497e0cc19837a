"""OpenAI's API, as its official client uses it, unchanged."""

import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from sqlalchemy import URL, text

from db.session import sync_engine
from tests.client import check_problem, wait_for
from tests.conftest import create_key, serving
from tests.provider import SECRET

CHAT = "/v1/chat/completions"


def user(*said: str) -> list[ChatCompletionMessageParam]:
    """What the user and the assistant said in turns."""
    turns: list[ChatCompletionMessageParam] = []
    for number, words in enumerate(said):
        turns.append(
            {"role": "assistant", "content": words} if number % 2 else {"role": "user", "content": words}
        )
    return turns


def client_of(service: httpx.Client, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def demonstration(dev: httpx.Client) -> Iterator[openai.OpenAI]:
    with client_of(dev) as client:
        yield client


@pytest.fixture
def obedient(scripted: httpx.Client) -> Iterator[openai.OpenAI]:
    with client_of(scripted) as client:
        yield client


@pytest.fixture(scope="module")
def keyed(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service in production, where callers need a key."""
    with serving(logs / "keyed", database, RUNTIME_ENV="prd", **model) as client:
        yield client


def run_row(database: URL, completion_id: str) -> Any:
    engine = sync_engine(database)
    with engine.connect() as connection:
        query = text("SELECT * FROM runs WHERE id = :id")
        row = connection.execute(query, {"id": UUID(completion_id.removeprefix("chatcmpl-"))}).one()
    engine.dispose()
    return row


def test_agents_are_models(demonstration: openai.OpenAI) -> None:
    models = {model.id: model for model in demonstration.models.list()}
    assert demonstration.models.retrieve("assistant") == models["assistant"]
    with pytest.raises(openai.NotFoundError, match="nobody") as caught:
        demonstration.models.retrieve("nobody")
    assert caught.value.code == "not_found"


def test_completion_has_its_run_and_nothing_is_stored_of_it(
    demonstration: openai.OpenAI, dev: httpx.Client, database: URL
) -> None:
    before = dev.get("/v1/conversations", params={"limit": 1}).json()
    completion = demonstration.chat.completions.create(
        model="assistant", messages=user("My name is Zoë", "Hello Zoë", "Who am I?")
    )
    [choice] = completion.choices
    assert "You said: Who am I?\nBefore that you said: My name is Zoë" in (choice.message.content or "")
    assert (choice.finish_reason, completion.model) == ("stop", "assistant")
    assert abs(completion.created - time.time()) < 60
    assert completion.usage
    assert completion.usage.total_tokens > completion.usage.completion_tokens > 0
    row = run_row(database, completion.id)
    assert (row.status, row.conversation_id) == ("succeeded", None)
    assert row.usage["input_tokens"] == completion.usage.prompt_tokens
    assert dev.get("/v1/conversations", params={"limit": 1}).json() == before


def test_stream_says_the_same_as_the_whole(demonstration: openai.OpenAI, database: URL) -> None:
    messages = user("hello there")
    whole = demonstration.chat.completions.create(model="assistant", messages=messages)
    chunks = list(
        demonstration.chat.completions.create(
            model="assistant", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert len(said) > 5
    assert "".join(said) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert run_row(database, chunks[0].id).usage["output_tokens"] == chunks[-1].usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.anyio
async def test_async_client(dev: httpx.Client) -> None:
    async with openai.AsyncOpenAI(base_url=f"{dev.base_url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="assistant", messages=user("What time is it?"), stream=True
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "The tool current_time says" in "".join(said)


def test_answer_of_an_agent_with_tools_is_text(demonstration: openai.OpenAI) -> None:
    completion = demonstration.chat.completions.create(model="assistant", messages=user("What time is it?"))
    [choice] = completion.choices
    assert "The tool current_time says" in (choice.message.content or "")
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_record_of_a_structured_agent_is_json(dev: httpx.Client, stream: bool) -> None:
    body = {"model": "incidents", "messages": user("The shop is down since noon"), "stream": stream}
    answer = dev.post(CHAT, json=body)
    if stream:
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if line.startswith("{")]
        content = "".join(delta.get("content", "") for delta in deltas)
    else:
        content = answer.json()["choices"][0]["message"]["content"]
    assert json.loads(content).keys() >= {"title"}


def test_half_of_a_surrogate_pair_is_replaced(obedient: openai.OpenAI) -> None:
    completion = obedient.chat.completions.create(model="assistant", messages=user("half"))
    assert completion.choices[0].message.content == "x\ufffdy"


def test_roles_parts_and_settings_reach_the_model(obedient: openai.OpenAI, provider: httpx.Client) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the first"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "found"},
        {"role": "assistant", "content": "It is found."},
        {"role": "user", "content": [{"type": "text", "text": "the second"}]},
    ]
    completion = obedient.chat.completions.create(
        model="assistant",
        messages=messages,
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=99,
        seed=7,
        stop="END",
        presence_penalty=0.25,
        frequency_penalty=-0.25,
        user="somebody",
        metadata={"a": "b"},
    )
    assert completion.choices[0].message.content == "Heard 2: the second"
    sent = provider.get("/last").json()
    roles = [message["role"] for message in sent["messages"]]
    assert roles[-5:] == ["user", "assistant", "tool", "assistant", "user"]
    assert "Be brief." in [message["content"] for message in sent["messages"]]
    assert sent["messages"][-4]["tool_calls"][0]["function"] == {"name": "search", "arguments": '{"q":1}'}
    assert {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"]}.items() <= sent.items()
    assert {"presence_penalty": 0.25, "frequency_penalty": -0.25}.items() <= sent.items()
    assert sent["max_completion_tokens"] == 99


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "search"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_supported_is_refused(
    demonstration: openai.OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        demonstration.chat.completions.create(**{"model": "assistant", "messages": user("Hi")} | options)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}], 422),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], 400),
        # Somebody else's call, which would run if it came last.
        ([{"role": "tool", "tool_call_id": "x", "content": "y"}, {"role": "user", "content": "Hi"}], 400),
    ],
    ids=["image", "not the user's turn", "result without a call"],
)
def test_messages_that_make_no_sense_are_refused(dev: httpx.Client, messages: Any, status: int) -> None:
    answer = dev.post(CHAT, json={"model": "assistant", "messages": messages})
    document = check_problem(answer, status)
    assert document["error"]["message"] == document["detail"]


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_agent(demonstration: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no agent 'gpt-6'"):
        demonstration.chat.completions.create(model="gpt-6", messages=user("Hi"), stream=stream)


def test_failure_is_an_error_without_secrets(obedient: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="no more requests for now") as caught:
        obedient.chat.completions.create(model="assistant", messages=user("fail rate"))
    assert caught.value.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(caught.value.response.headers["Retry-After"]) > 1
    assert SECRET not in str(caught.value)
    stream = obedient.chat.completions.create(model="assistant", messages=user("fail rate"), stream=True)
    with pytest.raises(openai.APIError, match="no more requests for now") as failed:
        list(stream)
    assert SECRET not in str(failed.value)


def test_run_is_cancelled_when_the_client_leaves(
    obedient: openai.OpenAI, provider: httpx.Client, database: URL
) -> None:
    before = provider.get("/stats").json()["cancelled"]
    stream = obedient.chat.completions.create(model="assistant", messages=user("slow 50 0.2 x"), stream=True)
    chunk = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.close()
    assert wait_for(lambda: run_row(database, chunk.id).status == "cancelled", 2)
    assert wait_for(lambda: provider.get("/stats").json()["cancelled"] > before, 2)


def test_keys_and_their_limits(keyed: httpx.Client, database: URL) -> None:
    def complete(key: str) -> None:
        with client_of(keyed, key) as client:
            client.chat.completions.create(model="assistant", messages=user("Hi"))

    with pytest.raises(openai.AuthenticationError, match="Bearer"):
        complete("ak_nobody_nothing")
    with pytest.raises(openai.NotFoundError):
        complete(create_key(database, "other", "--agents", "incidents"))
    once = create_key(database, "once", "--requests-per-minute", "1")
    complete(once)
    with pytest.raises(openai.RateLimitError) as caught:
        complete(once)
    assert int(caught.value.response.headers["Retry-After"]) > 0
