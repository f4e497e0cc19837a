"""OpenAI's API, as its official client uses it, unchanged."""

import json
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine
from chassis.testing import service as testing
from chassis.testing.client import check_problem, wait_for
from chassis.testing.provider import SECRET
from chassis.tests.service import create_key, create_limited_key
from chassis.tests.test_approval import decide, ledger, order, paid, replicas

__all__ = ["ledger", "replicas"]

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
    assert caught.value.code == "model_not_found"


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
    body = {"model": "tickets", "messages": user("The shop is down since noon"), "stream": stream}
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
        ({"functions": [{"name": "search"}]}, "functions"),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
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
    "options",
    [
        {"tools": [], "functions": []},
        {"tools": None, "response_format": None, "max_tokens": None, "stop": None},
        {"tools": [{"type": "function", "function": {"name": "search"}}], "tool_choice": "none"},
        {"functions": [{"name": "search"}], "function_call": "none"},
        {"response_format": {"type": "text"}},
        {"max_tokens": -1},
        {"max_tokens": 0, "max_completion_tokens": -1},
        {"stop": []},
        {"stop": [""]},
    ],
    ids=str,
)
def test_settings_that_ask_for_nothing(
    scripted: httpx.Client, provider: httpx.Client, options: dict[str, Any]
) -> None:
    answer = scripted.post(CHAT, json={"model": "assistant", "messages": user("Hi"), **options})
    assert answer.json()["choices"][0]["message"]["content"] == "Heard 1: Hi", answer.text
    sent = provider.get("/last").json()
    assert sent.keys().isdisjoint({"max_tokens", "max_completion_tokens", "stop", "response_format"})


def call(*ids: str, **members: Any) -> dict[str, Any]:
    function = {"name": "search", "arguments": "{}"}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **members}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": f"result of {call_id}"}


HI, GO_ON = {"role": "user", "content": "Hi"}, {"role": "user", "content": "go on"}


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "refusal", "refusal": "I can't."}],
        [{"type": "thinking", "thinking": "Hm", "signature": "x"}, {"type": "text", "text": "I can't."}],
        [{"type": "redacted_thinking", "data": "x"}, {"type": "output_text", "text": "I can't."}],
        [{"type": "reasoning", "text": "Hm"}, {"type": "text", "text": "I can't."}],
    ],
    ids=lambda parts: parts[0]["type"],
)
def test_parts_of_earlier_answers(scripted: httpx.Client, provider: httpx.Client, parts: Any) -> None:
    messages = [HI, {"role": "assistant", "content": parts}, GO_ON]
    answer = scripted.post(CHAT, json={"model": "assistant", "messages": messages})
    assert answer.is_success, answer.text
    assert provider.get("/last").json()["messages"][-2]["content"] == "I can't."


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://a.example/x.mp4"}},
    ],
    ids=lambda part: part["type"],
)
def test_sound_of_an_earlier_turn_is_named_to_the_model_and_a_new_one_refused(
    scripted: httpx.Client, provider: httpx.Client, part: dict[str, Any]
) -> None:
    shown = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    answered = [shown, {"role": "assistant", "content": "A cat."}, GO_ON]
    assert scripted.post(CHAT, json={"model": "assistant", "messages": answered}).is_success
    assert f"[{part['type']}, which was left out]" in str(
        provider.get("/last").json()["messages"][-3]["content"]
    )
    refused = scripted.post(CHAT, json={"model": "assistant", "messages": [HI, call(), shown]})
    problem = check_problem(
        refused,
        422,
        f"messages.2: only texts and the user's files are taken, so leave out the part '{part['type']}'",
    )
    assert problem["error"]["param"] == "messages"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "messages",
    [
        [HI, call("a"), GO_ON],
        [HI, call("a", "b"), result("a"), GO_ON],
        [HI, call("a"), result("a"), result("a"), GO_ON],
        [HI, call("a"), GO_ON, result("a"), GO_ON],
        [HI, call("a"), result("a"), call("b"), GO_ON],
        [HI, call("a"), call("b"), result("b"), GO_ON],
        [HI, call("a", "a"), GO_ON],
        [HI, call("a", content="Let me see."), GO_ON],
        [call("a"), GO_ON],
        [HI, {"role": "user", "content": ""}],
        # Which end without the user, as tool loops and "Continue" do.
        [HI, call("a"), result("a")],
        [HI, call("a", "b"), result("b")],
        [HI, call("a"), result("a"), result("a")],
        [HI, call("a")],
        [HI, {"role": "assistant", "content": "Hel"}],
        [HI, {"role": "system", "content": "Be brief."}],
    ],
    ids=lambda messages: " ".join(
        "".join(c["id"] for c in m.get("tool_calls", ())) or m.get("tool_call_id") or m["role"]
        for m in messages
    ),
)
def test_any_history_goes_on(
    scripted: httpx.Client, provider: httpx.Client, messages: list[dict[str, Any]], stream: bool
) -> None:
    answer = scripted.post(CHAT, json={"model": "assistant", "messages": messages, "stream": stream})
    assert answer.is_success, answer.text
    assert "Heard" in answer.text
    # As providers want it: each call has one result, next to it, and nothing runs that a client has called.
    sent = provider.get("/last").json()["messages"]
    assert sent[-1]["role"] in {"user", "tool", "system"}
    for at, message in enumerate(sent):
        called = {each["id"] for each in message.get("tool_calls") or ()}
        results = list(takewhile(lambda each: each["role"] == "tool", sent[at + 1 :]))
        if message["role"] == "assistant":
            assert sorted(each["tool_call_id"] for each in results) == sorted(called)


def test_a_silent_stream_is_kept_alive_by_what_every_client_can_read(scripted: httpx.Client) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "sleep 0.5"}], "stream": True}
    answer = scripted.post(CHAT, json=body)
    assert "no-transform" in answer.headers["Cache-Control"]
    *lines, done = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    assert done == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    assert deltas.count({}) > 2
    assert "".join(delta.get("content", "") for delta in deltas) == "Heard 1: sleep 0.5"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.responses.input_items.list("resp_1"),
        lambda client: client.responses.input_tokens.count(model="assistant", input="Hi"),
        lambda client: client.responses.compact(model="assistant", input="Hi"),
        lambda client: client.completions.create(model="assistant", prompt="Hi"),
        lambda client: client.chat.completions.retrieve("chatcmpl-1"),
        lambda client: client.embeddings.create(model="assistant", input="Hi"),
        lambda client: client.moderations.create(input="Hi"),
        lambda client: client.images.edit(image=b"x", prompt="Hi"),
        lambda client: client.audio.transcriptions.create(model="assistant", file=b"x"),
        lambda client: client.files.list(),
        lambda client: client.files.create(file=b"x", purpose="assistants"),
        lambda client: client.batches.list(),
        lambda client: client.vector_stores.create(),
        lambda client: client.fine_tuning.jobs.list(),
    ],
)
def test_what_else_openai_has_is_an_error_that_its_clients_show(
    dev: httpx.Client, ask: Callable[[openai.OpenAI], object]
) -> None:
    with (
        client_of(dev) as client,
        pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions") as caught,
    ):
        ask(client)
    assert caught.value.type == "invalid_request_error"


TEAM = """
from fastapi import APIRouter

from chassis.app import create_app, find_agents
from chassis.tests import agents

router = APIRouter()


@router.get("/v1/files")
def list_files() -> list[str]:
    return ["a team's own"]


app = create_app(agents=find_agents(agents), default_model="openai:gpt-6.1-terra", routers=[router])
"""


def test_what_else_openai_has_a_team_may_have_too(database: URL, logs: Path, tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(TEAM, encoding="utf-8")
    with testing.serving(logs / "team", database, "team:app", PYTHONPATH=str(tmp_path)) as client:
        assert client.get("/v1/files").json() == ["a team's own"]
        check_problem(client.get("/v1/batches"), 404, "/v1/batches isn't served here")


@pytest.mark.parametrize(
    ("order", "kind", "code"),
    [
        ("fail length", openai.BadRequestError, "context_length_exceeded"),
        ("fail request", openai.BadRequestError, "invalid_request"),
        ("loop current_time", openai.UnprocessableEntityError, "request_limit_exceeded"),
        ("fail key", openai.InternalServerError, "bad_gateway"),
        ("fail quota", openai.InternalServerError, "insufficient_quota"),
        ("sleep 60", openai.UnprocessableEntityError, "run_timeout"),
    ],
)
def test_what_would_fail_again_is_not_sent_again(
    scripted: httpx.Client, database: URL, order: str, kind: type[openai.APIStatusError], code: str
) -> None:
    engine = sync_engine(database)

    def count() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM runs")) or 0)

    before = count()
    with openai.OpenAI(base_url=f"{scripted.base_url}/v1", api_key="none", max_retries=2) as client:
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model="assistant", messages=user(order))
        assert caught.value.code == code
        assert count() == before + 1
        with pytest.raises(openai.APIError) as streamed:
            list(client.chat.completions.create(model="assistant", messages=user(order), stream=True))
        assert streamed.value.code == code
        assert count() == before + 2
    engine.dispose()


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ("fail length", HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
        ("fail rate", HTTPStatus.SERVICE_UNAVAILABLE, "rate_limit_exceeded"),
        ("fail key", HTTPStatus.BAD_GATEWAY, "bad_gateway"),
        ("loop current_time", HTTPStatus.UNPROCESSABLE_ENTITY, "request_limit_exceeded"),
    ],
)
def test_stream_that_brings_no_word_has_the_status_of_the_whole(
    locked: httpx.Client, database: URL, order: str, status: HTTPStatus, code: str
) -> None:
    # Of these clients decide by the status and the headers whether to ask again, or whom else.
    key = {"Authorization": f"Bearer {create_key(database)}"}
    body = {"model": "assistant", "messages": user(order)}
    whole = locked.post(CHAT, json=body, headers=key)
    streamed = locked.post(CHAT, json={**body, "stream": True}, headers=key)
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (status, code)
    assert streamed.json() == whole.json()
    for name in ("Content-Type", "Retry-After", "X-Should-Retry"):
        assert streamed.headers.get(name) == whole.headers.get(name)


@pytest.mark.parametrize("order", ["cut 3", "sleep 60"])
def test_stream_that_has_begun_ends_with_the_error(scripted: httpx.Client, order: str) -> None:
    answer = scripted.post(CHAT, json={"model": "assistant", "messages": user(order), "stream": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *chunks, failure = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line]
    assert failure["error"]["message"] == failure["detail"]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == ("1 2 3 " if order == "cut 3" else "")


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}], 422),
        ([{"role": "system", "content": "Be brief."}], 400),
        ([{"role": "assistant", "content": "Hello"}], 400),
        # Somebody else's call, which would run if it came last.
        ([{"role": "tool", "tool_call_id": "x", "content": "y"}, {"role": "user", "content": "Hi"}], 400),
    ],
    ids=["image", "only the system", "only the assistant", "result without a call"],
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
    with pytest.raises(openai.APIError, match="no more requests for now") as failed:
        list(obedient.chat.completions.create(model="assistant", messages=user("fail rate"), stream=True))
    assert SECRET not in str(failed.value)


def test_run_is_cancelled_when_the_client_leaves(
    obedient: openai.OpenAI, provider: httpx.Client, database: URL
) -> None:
    before = provider.get("/stats").json()["cancelled"]
    stream = obedient.chat.completions.create(model="assistant", messages=user("slow 50 0.2 x"), stream=True)
    chunk = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.close()
    assert wait_for(lambda: run_row(database, chunk.id).status == "cancelled", 8)
    assert wait_for(lambda: provider.get("/stats").json()["cancelled"] > before, 8)


def test_keys_and_their_limits(locked: httpx.Client, database: URL) -> None:
    def complete(key: str) -> None:
        with client_of(locked, key) as client:
            client.chat.completions.create(model="assistant", messages=user("Hi"))

    with pytest.raises(openai.AuthenticationError, match="Bearer") as unknown:
        complete("ak_nobody_nothing")
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        complete(create_key(database, "other", "--agents", "tickets"))
    once = create_limited_key(database, 1)
    complete(once)
    with pytest.raises(openai.RateLimitError) as caught:
        complete(once)
    assert int(caught.value.response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "said", "text"),
    [
        ("/v1/chat/completions", "messages", "choices"),
        ("/v1/responses", "input", "output"),
    ],
)
def test_approval_is_asked_for_in_words(
    replicas: list[httpx.Client], ledger: Path, path: str, said: str, text: str, stream: bool
) -> None:
    """Its clients can show nothing but words, which name the address where it is decided."""
    here, there = replicas
    body = {"model": "clerk", said: [{"role": "user", "content": order(ledger)}], "stream": stream}
    answer = here.post(path, json=body).text
    assert "needs a person's approval" in answer
    run_id = answer.partition("/v1/runs/")[2].partition("/decisions")[0]
    run = there.get(f"/v1/runs/{run_id}").json()
    assert run["calls"][0]["arguments"]["amount"] == 5
    assert decide(there, run).json()["output"] == "The tool said: Paid 5."
    listed = there.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert listed["title"].startswith("call pay")
    assert paid(ledger) == [5]


def test_a_response_that_is_not_stored(replicas: list[httpx.Client], ledger: Path) -> None:
    body = {"model": "clerk", "input": order(ledger), "store": False}
    refused = replicas[0].post("/v1/responses", json=body)
    assert refused.status_code == 422
    assert "approval for pay" in refused.json()["error"]["message"]
