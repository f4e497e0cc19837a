"""OpenAI's Responses API, as its official client uses it, unchanged."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent, ResponseUsage
from pydantic import TypeAdapter
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine
from chassis.testing.client import ask, check_problem, wait_for
from chassis.testing.provider import SECRET
from chassis.tests import test_openai_api
from chassis.tests.service import create_key, create_limited_key
from chassis.tests.test_approval import decide, ledger, order, paid
from chassis.tests.test_openai_api import client_of

RESPONSES = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
HI, GO_ON = {"role": "user", "content": "Hi"}, {"role": "user", "content": "go on"}


__all__ = ["ledger"]

demonstration, obedient = test_openai_api.demonstration, test_openai_api.obedient


def create(client: openai.OpenAI, words: Any, **options: Any) -> Response:
    """A response, which is as the client's own types say."""
    response = client.responses.create(**cast("Any", {"model": "assistant", "input": words} | options))
    Response.model_validate(response.to_dict(), strict=True)
    return cast("Response", response)


def events_of(answer: httpx.Response) -> list[Any]:
    """The events of a stream, which are as the client's own types say, named and numbered."""
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    found = []
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = EVENT.validate_json(data.removeprefix("data: "))
        assert (name, event.sequence_number) == (f"event: {event.type}", number)
        found.append(event)
    return found


def run_row(database: URL, response_id: str) -> Any:
    engine = sync_engine(database)
    with engine.connect() as connection:
        query = text("SELECT * FROM runs WHERE id = :id")
        row = connection.execute(query, {"id": UUID(response_id.removeprefix("resp_"))}).one()
    engine.dispose()
    return row


def messages_of(service: httpx.Client, response: Response) -> list[tuple[str, str]]:
    """What the conversation of a response is."""
    assert response.conversation
    detail = service.get(f"/v1/conversations/{response.conversation.id}").json()
    return [(message["role"], message["content"]) for message in detail["messages"]]


def test_response_is_a_run_of_a_conversation(
    obedient: openai.OpenAI, scripted: httpx.Client, database: URL
) -> None:
    response = create(obedient, "hello there", metadata={"a": "b"}, temperature=0.5, max_output_tokens=99)
    [message] = response.output
    assert message.type == "message"
    assert response.output_text == "Heard 1: hello there"
    assert (response.status, response.model, response.metadata) == ("completed", "assistant", {"a": "b"})
    assert (response.temperature, response.max_output_tokens, response.tools) == (0.5, 99, [])
    assert abs(response.created_at - time.time()) < 60
    row = run_row(database, response.id)
    assert response.usage
    assert row.usage["input_tokens"] == response.usage.input_tokens
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.conversation
    [listed, *_] = scripted.get("/v1/conversations").json()["conversations"]
    assert (listed["id"], listed["title"]) == (response.conversation.id, "hello there")
    assert messages_of(scripted, response) == [("user", "hello there"), ("assistant", "Heard 1: hello there")]
    read = obedient.responses.retrieve(response.id)
    same = {"id", "status", "output", "usage", "conversation", "model"}
    assert read.model_dump(include=same) == response.model_dump(include=same)


@pytest.mark.parametrize("stream", [False, True])
def test_goes_on_from_the_previous_response(
    obedient: openai.OpenAI, scripted: httpx.Client, stream: bool
) -> None:
    def go_on(words: str, previous: str | None) -> Response:
        if not stream:
            return create(obedient, words, previous_response_id=previous)
        with obedient.responses.stream(
            model="assistant", input=words, previous_response_id=previous or openai.omit
        ) as events:
            return events.get_final_response()

    first = go_on("one", None)
    second = go_on("two", first.id)
    third = go_on("three", second.id)
    assert (third.output_text, third.previous_response_id) == ("Heard 3: three", second.id)
    assert first.conversation == second.conversation == third.conversation
    assert len(messages_of(scripted, third)) == 6
    # From one that isn't the newest: what came after it is left out from then on, and can be gone on from too.
    other = go_on("other", first.id)
    assert other.output_text == "Heard 2: other"
    assert [words for _, words in messages_of(scripted, other)][::2] == ["one", "other"]
    assert go_on("four", third.id).output_text == "Heard 4: four"
    assert go_on("more", other.id).output_text == "Heard 3: more"
    assert usage_of(third).input_tokens < usage_of(third).total_tokens < 60


def usage_of(response: Response) -> ResponseUsage:
    assert response.usage
    return response.usage


def test_goes_on_in_a_conversation_that_began_elsewhere(
    obedient: openai.OpenAI, scripted: httpx.Client
) -> None:
    run = ask(scripted, "one").json()
    for conversation in (run["conversation_id"], {"id": run["conversation_id"]}):
        second = create(obedient, "two", conversation=conversation)
    assert second.output_text == "Heard 3: two"
    # Any run is a response, whatever it was begun by.
    assert obedient.responses.retrieve(f"resp_{run['run_id']}").output_text == "Heard 1: one"
    assert (
        create(obedient, "other", previous_response_id=f"resp_{run['run_id']}").output_text
        == "Heard 2: other"
    )


def test_response_that_is_not_stored_leaves_nothing(
    obedient: openai.OpenAI, scripted: httpx.Client, database: URL
) -> None:
    kept = create(obedient, "one")
    before = scripted.get("/v1/conversations").json()
    response = create(obedient, "two", store=False, previous_response_id=kept.id)
    assert (response.output_text, response.conversation) == ("Heard 2: two", None)
    assert create(obedient, "three", store=False).output_text == "Heard 1: three"
    assert scripted.get("/v1/conversations").json() == before
    assert messages_of(scripted, kept) == [("user", "one"), ("assistant", "Heard 1: one")]
    assert (run_row(database, response.id).conversation_id, run_row(database, response.id).output) == (
        None,
        None,
    )
    with pytest.raises(openai.NotFoundError):
        obedient.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        create(obedient, "four", previous_response_id=response.id)


def test_stream_says_the_same_as_the_whole(demonstration: openai.OpenAI, dev: httpx.Client) -> None:
    whole = create(demonstration, "hello there")
    answer = dev.post(RESPONSES, json={"model": "assistant", "input": "hello there", "stream": True})
    events = events_of(answer)
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    said = "".join(event.delta for event in events[4:-4])
    assert said == whole.output_text == events[-4].text == events[-1].response.output_text
    assert len(kinds) > 12
    assert events[0].response.status == "in_progress"
    assert events[-1].response.usage.output_tokens == usage_of(whole).output_tokens
    stream = demonstration.responses.create(model="assistant", input="hello there", stream=True)
    assert [event.type.removeprefix("response.") for event in stream] == kinds


def test_silent_stream_is_kept_alive(scripted: httpx.Client, obedient: openai.OpenAI) -> None:
    answer = scripted.post(RESPONSES, json={"model": "assistant", "input": "sleep 0.5", "stream": True})
    assert answer.text.count(": ping\n\n") > 2
    assert events_of(answer)[-1].response.output_text == "Heard 1: sleep 0.5"
    with obedient.responses.stream(model="assistant", input="sleep 0.5") as events:
        assert events.get_final_response().output_text == "Heard 1: sleep 0.5"


@pytest.mark.anyio
async def test_async_client(dev: httpx.Client) -> None:
    async with openai.AsyncOpenAI(base_url=f"{dev.base_url}/v1", api_key="none") as client:
        stream = await client.responses.create(model="assistant", input="What time is it?", stream=True)
        said = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        assert "The tool current_time says" in "".join(said)
        async with client.responses.stream(model="assistant", input="What time is it?") as events:
            response = await events.get_final_response()
        assert "The tool current_time says" in response.output_text
        assert [item.type for item in response.output] == ["message"]
        assert (await client.responses.retrieve(response.id)).output_text == response.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_record_of_a_structured_agent_is_json(dev: httpx.Client, stream: bool) -> None:
    body = {"model": "tickets", "input": "The shop is down since noon", "stream": stream}
    answer = dev.post(RESPONSES, json=body)
    response = events_of(answer)[-1].response if stream else Response.model_validate_json(answer.text)
    assert json.loads(response.output_text).keys() == {"title", "summary"}
    read = dev.get(f"{RESPONSES}/{response.id}").json()
    assert read["output"][0]["content"][0]["text"] == response.output_text
    with client_of(dev) as client:
        again = create(client, "And so is the till", model="tickets", previous_response_id=response.id)
    assert again.conversation == response.conversation


def test_what_an_agent_says_beside_its_record_is_no_answer(locked: httpx.Client, database: URL) -> None:
    key = {"Authorization": f"Bearer {create_key(database)}"}
    body = {"model": "tickets", "input": "say Well", "stream": True}
    check_problem(locked.post(RESPONSES, json=body, headers=key), 422)
    body["input"] = 'call final_result {"title": "Till", "summary": "Broken"}'
    response = events_of(locked.post(RESPONSES, json=body, headers=key))[-1].response
    assert json.loads(response.output_text) == {"title": "Till", "summary": "Broken"}


@pytest.mark.parametrize("stream", [False, True])
def test_answer_for_which_there_were_too_few_tokens(scripted: httpx.Client, stream: bool) -> None:
    answer = scripted.post(RESPONSES, json={"model": "assistant", "input": "short Well, I", "stream": stream})
    if stream:
        last = events_of(answer)[-1]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = Response.model_validate_json(answer.text)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.output_text, response.output[0].status) == ("Well, I", "incomplete")
    assert scripted.get(f"{RESPONSES}/{response.id}").json()["status"] == "incomplete"


def test_half_of_a_surrogate_pair_is_replaced(obedient: openai.OpenAI) -> None:
    response = create(obedient, "half")
    assert response.output_text == obedient.responses.retrieve(response.id).output_text == "x\ufffdy"


def test_settings_and_instructions_reach_the_model(obedient: openai.OpenAI, provider: httpx.Client) -> None:
    first = create(
        obedient,
        [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "one"}],
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=99,
        reasoning={"effort": "low"},
        truncation="auto",
        user="somebody",
    )
    assert first.instructions == "Be brief."
    sent = provider.get("/last").json()
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.5, 0.9, 99)
    told = " ".join(str(m["content"]) for m in sent["messages"] if m["role"] in {"system", "developer"})
    for words in ("Answer in a few words.", "Be brief.", "Be kind."):
        assert words in told
    # Instructions are of one response; what was said is of the conversation.
    create(obedient, "two", previous_response_id=first.id)
    sent = str(provider.get("/last").json()["messages"])
    assert "Be kind." in sent
    assert "Be brief." not in sent


CALL = {"type": "function_call", "call_id": "a", "name": "search", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "found"}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm"}],
}
ANSWER = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(
    ("items", "heard"),
    [
        ([HI, ANSWER, GO_ON], "Heard 2: go on"),
        ([HI, CALL, RESULT, ANSWER, GO_ON], "Heard 2: go on"),
        ([HI, THOUGHT, CALL, {**CALL, "call_id": "b"}, RESULT, {**RESULT, "call_id": "b"}, GO_ON], "Heard 2: go on"),
        ([HI, CALL, GO_ON], "Heard 2: go on"),
        ([HI, {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}, ANSWER, GO_ON], "Heard 2: go on"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "What?"}, PICTURE]}, ANSWER, GO_ON], "Heard 2: go on"),
        ([HI, GO_ON], "Heard 2: go on"),
        ([HI, {"role": "developer", "content": "Be kind."}], "Heard 1: Hi"),
        ([HI, ANSWER], "Heard 2: Continue your last message"),
    ],
    ids=str,
)  # fmt: skip
def test_history_in_the_input(
    obedient: openai.OpenAI, scripted: httpx.Client, items: Any, heard: str, store: bool
) -> None:
    response = create(obedient, items, store=store)
    assert response.output_text.startswith(heard)
    if store:
        told = messages_of(scripted, response)
        assert next(words for role, words in told if role == "user") in {
            "Hi",
            "What?[input_image, which was left out]",
        }
        again = create(obedient, "more", previous_response_id=response.id)
        users = sum(role == "user" for role, _ in told)
        assert again.output_text == f"Heard {users + 1}: more"


def test_message_that_is_kept_here_may_be_told_by_its_id(
    obedient: openai.OpenAI, locked: httpx.Client, database: URL
) -> None:
    first = create(obedient, "say Blue.")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    assert create(obedient, [HI, reference, GO_ON]).output_text == "Heard 2: go on"
    with client_of(locked, create_key(database)) as other, pytest.raises(openai.NotFoundError):
        create(other, [HI, reference, GO_ON])


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"tools": [{"type": "function", "name": "x"}]}, 422, "tools", "leave it out"),
    ({"tool_choice": "required"}, 422, "tool_choice", "leave it out"),
    ({"text": {"format": {"type": "json_object"}}}, 422, "text.format", "leave it out"),
    ({"background": True}, 422, "background", "while its client waits"),
    ({"prompt": {"id": "pmpt_1"}}, 422, "prompt", "leave it out"),
    ({"top_logprobs": 2}, 422, "top_logprobs", "leave it out"),
    ({"include": ["message.output_text.logprobs"]}, 400, "include", "leave it out"),
    ({"temperature": 3}, 422, "temperature", "less than or equal to 2"),
    ({"input": []}, 422, "input", "at least 1 item"),
    ({"input": [HI, CALL, RESULT]}, 422, "input", "'function_call_output'"),
    ({"input": [HI, CALL, RESULT, {"role": "system", "content": "x"}]}, 422, "input", "'function_call_output'"),
    ({"input": [{"role": "user", "content": [PICTURE]}]}, 422, "input", "said to be image/png, but its contents"),
    ({"input": [HI, ANSWER, {"role": "user", "content": [{"type": "input_file"}]}]}, 422, "input", "'input_file'"),
    ({"input": [{"role": "system", "content": "x"}]}, 400, "input", "must be the user's"),
    ({"input": [HI, {"type": "item_reference", "id": "msg_1"}, GO_ON]}, 404, "input", "'msg_1' not found"),
    ({"previous_response_id": "resp_1"}, 400, "previous_response_id", "not found"),
    ({"previous_response_id": f"resp_{UUID(int=1).hex}"}, 400, "previous_response_id", "not found"),
    ({"previous_response_id": "resp_1", "conversation": "x"}, 400, "previous_response_id", "leave one of them out"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("options", "status", "param", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_not_supported_is_refused(
    demonstration: openai.OpenAI, options: dict[str, Any], status: int, param: str, words: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as caught:
        create(demonstration, **{"words": "Hi", "stream": stream} | options)
    assert (caught.value.status_code, caught.value.param) == (status, param)
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"tools": None, "text": None, "prompt": None, "background": False, "max_output_tokens": None},
        {"tools": [{"type": "function", "name": "search"}], "tool_choice": "none"},
        {"include": ["reasoning.encrypted_content"], "top_logprobs": 0, "metadata": None, "store": None},
        {
            "parallel_tool_calls": False,
            "service_tier": "auto",
            "stream_options": {"include_obfuscation": False},
        },
    ],
    ids=str,
)
def test_settings_that_ask_for_nothing(obedient: openai.OpenAI, options: dict[str, Any]) -> None:
    assert create(obedient, "Hi", **options).output_text == "Heard 1: Hi"


def test_unknown_and_somebody_elses_look_the_same(locked: httpx.Client, database: URL) -> None:
    with client_of(locked, create_key(database)) as ada, client_of(locked, create_key(database)) as bob:
        first = create(ada, "a secret")
        unknown = f"resp_{UUID(int=2).hex}"
        for call in (
            lambda at: create(bob, "Hi", previous_response_id=at),
            lambda at: bob.responses.retrieve(at),
            lambda at: bob.responses.cancel(at),
            lambda at: bob.responses.delete(at),
        ):
            said = []
            for at in (first.id, unknown):
                with pytest.raises(openai.APIStatusError, match="not found") as caught:
                    call(at)
                body = cast("dict[str, Any]", caught.value.body)
                said.append((caught.value.status_code, json.dumps(body).replace(at, "")))
            assert said[0] == said[1]
        assert first.conversation
        with pytest.raises(openai.NotFoundError):
            create(bob, "Hi", conversation=first.conversation.id)
        assert create(ada, "two", previous_response_id=first.id).output_text == "Heard 2: two"


def test_previous_response_that_is_not_there_has_openais_code(demonstration: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(demonstration, "Hi", previous_response_id="resp_1")
    assert caught.value.code == "previous_response_not_found"


def test_keys_and_their_limits(locked: httpx.Client, database: URL) -> None:
    with client_of(locked, "ak_nobody_nothing") as nobody, pytest.raises(openai.AuthenticationError):
        create(nobody, "Hi")
    with (
        client_of(locked, create_key(database, "other", "--agents", "tickets")) as other,
        pytest.raises(openai.NotFoundError) as unknown,
    ):
        create(other, "Hi")
    assert unknown.value.code == "model_not_found"
    with client_of(locked, create_limited_key(database, 1)) as once:
        first = create(once, "Hi")
        with pytest.raises(openai.RateLimitError) as caught:
            create(once, "Hi", previous_response_id=first.id)
        assert int(caught.value.response.headers["Retry-After"]) > 0
        assert once.responses.retrieve(first.id).output_text == "Heard 1: Hi"


def test_repeated_request_runs_once(obedient: openai.OpenAI, scripted: httpx.Client) -> None:
    key = {"Idempotency-Key": f"key {time.time()}"}
    first = create(obedient, "one", extra_headers=key)
    assert create(obedient, "one", extra_headers=key).id == first.id
    with obedient.responses.stream(model="assistant", input="one", extra_headers=key) as events:
        again = events.get_final_response()
    assert (again.id, again.output_text, again.usage) == (first.id, first.output_text, first.usage)
    with pytest.raises(openai.UnprocessableEntityError, match="another request"):
        create(obedient, [HI, ANSWER, {"role": "user", "content": "one"}], extra_headers=key)
    second_key = {"Idempotency-Key": f"other {time.time()}"}
    second = create(obedient, "two", previous_response_id=first.id, extra_headers=second_key)
    create(obedient, "three", previous_response_id=second.id)
    assert create(obedient, "two", previous_response_id=first.id, extra_headers=second_key).id == second.id
    with ThreadPoolExecutor(1) as pool:
        underway = {"Idempotency-Key": f"underway {time.time()}"}
        slow = pool.submit(create, obedient, "sleep 1", extra_headers=underway)
        time.sleep(0.5)
        with pytest.raises(openai.ConflictError, match="still underway"):
            create(obedient, "sleep 1", extra_headers=underway)
        assert slow.result().output_text == "Heard 1: sleep 1"


def test_run_is_cancelled_when_the_client_leaves(
    obedient: openai.OpenAI, provider: httpx.Client, database: URL
) -> None:
    before = provider.get("/stats").json()["cancelled"]
    stream = obedient.responses.create(model="assistant", input="slow 50 0.2 x", stream=True)
    created = next(event for event in stream if event.type == "response.created")
    stream.close()
    wait_for(lambda: run_row(database, created.response.id).status == "cancelled", 8)
    wait_for(lambda: provider.get("/stats").json()["cancelled"] > before, 8)
    with pytest.raises(openai.APITimeoutError):
        create(obedient, "sleep 2.5", timeout=0.5)
    wait_for(lambda: provider.get("/stats").json()["cancelled"] > before + 1, 8)


def test_cancel_stops_a_response(obedient: openai.OpenAI, scripted: httpx.Client, database: URL) -> None:
    with client_of(scripted) as second:
        stream = obedient.responses.create(model="assistant", input="slow 50 0.1 x", stream=True)
        created = next(event for event in stream if event.type == "response.created")
        next(event for event in stream if event.type == "response.output_text.delta")
        assert second.responses.retrieve(created.response.id).status == "in_progress"
        with pytest.raises(openai.ConflictError, match="underway"):
            create(second, "Hi", previous_response_id=created.response.id)
        cancelled = second.responses.cancel(created.response.id)
        *_, last = stream
    assert (cancelled.status, cancelled.id) == ("cancelled", created.response.id)
    assert last.type == "response.failed"
    assert (last.response.status, last.response.error and last.response.error.message) == (
        "cancelled",
        "The run was cancelled.",
    )
    assert last.response.output_text.startswith("x/1 ")
    # What was said so far is kept, and can be gone on from.
    assert messages_of(scripted, cancelled)[0] == ("user", "slow 50 0.1 x")
    assert create(obedient, "two", previous_response_id=cancelled.id).output_text == "Heard 2: two"
    # One that has ended stays as it is.
    ended = create(obedient, "Hi")
    assert obedient.responses.cancel(ended.id).status == "completed"


def test_response_is_deleted_with_its_conversation(obedient: openai.OpenAI, scripted: httpx.Client) -> None:
    response = create(obedient, "Hi")
    assert response.conversation
    with pytest.raises(openai.BadRequestError, match=f"DELETE /v1/conversations/{response.conversation.id}"):
        obedient.responses.delete(response.id)
    assert scripted.delete(f"/v1/conversations/{response.conversation.id}").status_code == 204
    with pytest.raises(openai.NotFoundError):
        obedient.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ("fail length", HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
        ("fail rate", HTTPStatus.SERVICE_UNAVAILABLE, "rate_limit_exceeded"),
        ("loop current_time", HTTPStatus.UNPROCESSABLE_ENTITY, "request_limit_exceeded"),
    ],
)
def test_stream_that_brings_no_word_has_the_status_of_the_whole(
    locked: httpx.Client, database: URL, order: str, status: HTTPStatus, code: str
) -> None:
    key = {"Authorization": f"Bearer {create_key(database)}"}
    body = {"model": "assistant", "input": order}
    whole = locked.post(RESPONSES, json=body, headers=key)
    streamed = locked.post(RESPONSES, json={**body, "stream": True}, headers=key)
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (status, code)
    assert streamed.json() == whole.json()
    assert SECRET not in whole.text
    for name in ("Content-Type", "Retry-After", "X-Should-Retry"):
        assert streamed.headers.get(name) == whole.headers.get(name)
    # It has left nothing.
    assert locked.get("/v1/conversations", headers=key).json()["conversations"] == []


def test_stream_that_has_begun_ends_with_the_error(scripted: httpx.Client, obedient: openai.OpenAI) -> None:
    answer = scripted.post(RESPONSES, json={"model": "assistant", "input": "cut 3", "stream": True})
    *_, failed = events_of(answer)
    assert failed.type == "response.failed"
    assert (failed.response.status, failed.response.error.code) == ("failed", "server_error")
    assert failed.response.output_text == "1 2 3 "
    read = obedient.responses.retrieve(failed.response.id)
    assert read.error
    assert (read.status, read.error.message) == ("failed", failed.response.error.message)
    with pytest.raises(openai.BadRequestError, match="left nothing"):
        create(obedient, "Hi", previous_response_id=failed.response.id)
    # Before its first word, but after a sign of life.
    stream = obedient.responses.create(model="assistant", input="sleep 60", stream=True)
    with pytest.raises(openai.APIError, match="AGENT_TIMEOUT"):
        list(stream)


def test_only_what_is_there_is_read(demonstration: openai.OpenAI, dev: httpx.Client) -> None:
    response = create(demonstration, "Hi")
    with pytest.raises(openai.BadRequestError, match="isn't streamed"):
        demonstration.responses.retrieve(response.id, stream=True)
    completion = demonstration.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": "Hi"}]
    )
    with pytest.raises(openai.NotFoundError):
        demonstration.responses.retrieve(f"resp_{completion.id.removeprefix('chatcmpl-')}")
    check_problem(dev.get(f"{RESPONSES}/{response.id}/input_items"), 404, "isn't served here")


@pytest.mark.parametrize(
    ("decided", "told"), [(True, "Paid 5."), (False, "not carried out")], ids=["approved", "left open"]
)
def test_it_goes_on_after_a_persons_word(
    obedient: openai.OpenAI,
    scripted: httpx.Client,
    provider: httpx.Client,
    ledger: Path,
    decided: bool,
    told: str,
) -> None:
    waits = create(obedient, order(ledger), model="clerk")
    assert str(UUID(waits.id.removeprefix("resp_"))) in waits.output_text
    run = scripted.get(f"/v1/runs/{waits.id.removeprefix('resp_')}").json()
    if decided:
        assert decide(scripted, run).json()["status"] == "succeeded"
    create(obedient, "go on", model="clerk", previous_response_id=waits.id)
    results = [said["content"] for said in provider.get("/last").json()["messages"] if said["role"] == "tool"]
    assert len(results) == 1
    assert told in results[0]
    assert paid(ledger) == ([5] if decided else [])
