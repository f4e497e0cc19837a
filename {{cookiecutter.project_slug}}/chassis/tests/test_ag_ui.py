"""The events of the AG-UI protocol, checked by its own classes."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from ag_ui.core import Event, EventType
from pydantic import TypeAdapter
from sqlalchemy import URL

from chassis.testing.client import SSE, ask, check_problem, run_rows, wait_for
from chassis.testing.provider import SECRET
from chassis.tests.files import data_url, png
from chassis.tests.service import create_key
from chassis.tests.test_approval import ledger, order, paid, replicas

__all__ = ["ledger", "replicas"]

AG_UI = "/v1/agents/assistant/ag-ui"
CLERK = "/v1/agents/clerk/ag-ui"
EVENT: TypeAdapter[Any] = TypeAdapter(Event)


def run_input(thread: str, *messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
    return {"threadId": thread, "runId": uuid4().hex, "messages": list(messages), **empty, **members}


def message(content: str) -> dict[str, Any]:
    return {"id": uuid4().hex, "role": "user", "content": content}


def events(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [EVENT.validate_json(line) for line in lines]


def said(found: list[Any]) -> str:
    return "".join(event.delta for event in found if event.type is EventType.TEXT_MESSAGE_CONTENT)


def test_conversation_is_kept_under_the_id_of_the_thread(dev: httpx.Client, database: URL) -> None:
    thread = uuid4().hex
    found = events(dev.post(AG_UI, json=run_input(thread, message("What time is it?"))))
    types = [event.type for event in found]
    assert (types[0], types[-1]) == (EventType.RUN_STARTED, EventType.RUN_FINISHED)
    assert {EventType.TOOL_CALL_START, EventType.TOOL_CALL_RESULT} <= set(types)
    assert "The tool current_time says" in said(found)
    found = events(dev.post(AG_UI, json=run_input(thread, message("And now?"))))
    assert "Before that you said: What time is it?" in said(found)
    assert dev.get(f"/v1/conversations/{thread}").json()["title"] == "What time is it?"
    assert [row.status for row in run_rows(database, thread)] == ["succeeded", "succeeded"]


def test_tool_of_the_client(scripted: httpx.Client, database: URL) -> None:
    thread = uuid4().hex
    tool = {
        "name": "ask_color",
        "description": "Asks the user for a color.",
        "parameters": {"type": "object", "properties": {"why": {"type": "string"}}},
    }
    asked = run_input(thread, message('call ask_color {"why": "paint"}'), tools=[tool])
    found = events(scripted.post(AG_UI, json=asked))
    [call] = [event for event in found if event.type is EventType.TOOL_CALL_START]
    assert call.tool_call_name == "ask_color"
    assert EventType.TOOL_CALL_RESULT not in [event.type for event in found]
    result = {"id": uuid4().hex, "role": "tool", "toolCallId": call.tool_call_id, "content": "blue"}
    found = events(scripted.post(AG_UI, json=run_input(thread, result, tools=[tool])))
    assert "The tool said: blue" in said(found)
    assert [row.status for row in run_rows(database, thread)] == ["succeeded", "succeeded"]


COLOR = {
    "name": "ask_color",
    "description": "Asks the user for a color.",
    "parameters": {"type": "object", "properties": {"why": {"type": "string"}}},
}


def result(call_id: str, content: str = "blue") -> dict[str, Any]:
    return {"id": uuid4().hex, "role": "tool", "toolCallId": call_id, "content": content}


def ask_color(client: httpx.Client, thread: str) -> str:
    """Have the agent call the client's tool, and return the call's id."""
    asked = run_input(thread, message('call ask_color {"why": "paint"}'), tools=[COLOR])
    [call] = [e for e in events(client.post(AG_UI, json=asked)) if e.type is EventType.TOOL_CALL_START]
    return str(call.tool_call_id)


def test_question_that_was_never_answered_ends_no_conversation(scripted: httpx.Client) -> None:
    """As when the tab was closed over it: the conversation goes on here and wherever else it is shown."""
    thread = uuid4().hex
    call = ask_color(scripted, thread)
    assert said(events(scripted.post(AG_UI, json=run_input(thread, message("go on"))))) == "Heard 2: go on"
    late = scripted.post(AG_UI, json=run_input(thread, result(call), tools=[COLOR]))
    check_problem(late, 409, f"waits for no result of the tool call {call!r}")
    ask_color(scripted, thread)
    assert ask(scripted, "and now?", thread).json()["output"] == "Heard 4: and now?"
    assert ask(scripted, "and now?", thread, headers=SSE).is_success
    ask_color(scripted, thread)
    vercel = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "on"}]}
    body = {"id": thread, "trigger": "submit-message", "messages": [vercel]}
    scripted.post(AG_UI.replace("ag-ui", "vercel"), json=body)
    assert scripted.get(f"/v1/conversations/{thread}").json()["messages"][-1]["content"] == "Heard 7: on"


@pytest.mark.parametrize("times", [1, 2])
def test_result_that_comes_twice(scripted: httpx.Client, times: int) -> None:
    thread = uuid4().hex
    call = ask_color(scripted, thread)
    answer = run_input(thread, *[result(call)] * times, tools=[COLOR])
    assert "The tool said: blue" in said(events(scripted.post(AG_UI, json=answer)))
    check_problem(scripted.post(AG_UI, json=answer), 409, f"waits for no result of the tool call {call!r}")
    # With a new question it does no harm.
    more = run_input(thread, result(call), message("and now?"))
    assert said(events(scripted.post(AG_UI, json=more))) == "Heard 2: and now?"


@pytest.mark.parametrize("known", [False, True])
def test_result_of_a_call_that_nobody_made(scripted: httpx.Client, database: URL, known: bool) -> None:
    thread = uuid4().hex
    if known:
        ask_color(scripted, thread)
    refused = scripted.post(AG_UI, json=run_input(thread, result("nobody"), tools=[COLOR]))
    check_problem(refused, 409, "waits for no result of the tool call 'nobody'")
    assert len(run_rows(database, thread)) == known


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("messages", [[], [{"id": "a", "role": "assistant", "content": "Hello"}]], ids=len)
def test_request_with_nothing_new(scripted: httpx.Client, messages: list[Any], known: bool) -> None:
    thread = uuid4().hex
    if known:
        scripted.post(AG_UI, json=run_input(thread, message("hello")))
    error = events(scripted.post(AG_UI, json=run_input(thread, *messages)))[-1]
    assert error.type is EventType.RUN_ERROR
    assert error.message.startswith("Nothing new was sent")


def test_failure_is_an_event_without_secrets(scripted: httpx.Client, database: URL) -> None:
    thread = uuid4().hex
    response = scripted.post(AG_UI, json=run_input(thread, message("fail rate")))
    error = events(response)[-1]
    assert error.type is EventType.RUN_ERROR
    assert "no more requests for now" in error.message
    assert SECRET not in response.text
    [row] = run_rows(database, thread)
    assert (row.status, row.error) == ("failed", error.message)


def test_run_is_cancelled_when_the_client_leaves(
    scripted: httpx.Client, provider: httpx.Client, database: URL
) -> None:
    thread = uuid4().hex
    with scripted.stream("POST", AG_UI, json=run_input(thread, message("sleep 60"))) as response:
        lines = response.iter_lines()
        assert "RUN_STARTED" in next(lines)
        wait_for(lambda: provider.get("/stats").json()["open"])
    assert wait_for(lambda: [row.status for row in run_rows(database, thread)] == ["cancelled"], 8)


def test_what_the_client_has_stopped_is_kept(scripted: httpx.Client, database: URL) -> None:
    thread, question = uuid4().hex, message("slow 300 0.05 tick")
    with scripted.stream("POST", AG_UI, json=run_input(thread, question)) as response:
        next(line for line in response.iter_lines() if "tick/3" in line)
    wait_for(lambda: run_rows(database, thread)[-1].status == "cancelled")
    found = scripted.get(f"/v1/conversations/{thread}").json()["messages"]
    assert [item["content"][:20] for item in found] == ["slow 300 0.05 tick", "tick/1 tick/2 tick/3"]
    assert said(events(scripted.post(AG_UI, json=run_input(thread, message("on"))))) == "Heard 2: on"


def media(kind: str, value: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "data", "value": value, "mimeType": f"{kind}/x"}, **members}


@pytest.mark.parametrize(
    "contents",
    [
        {"role": "user", "content": [media("image", "a"), {"type": "text", "text": "What is it?"}]},
        {"role": "user", "content": [media("audio", "YQ==", metadata={"vendor_metadata": 1})]},
        {"role": "tool", "toolCallId": "stored", "content": [media("image", "a")]},
    ],
    ids=["not base64", "metadata", "tool"],
)
def test_contents_that_make_no_sense_are_refused_before_the_run_starts(
    dev: httpx.Client, database: URL, contents: dict[str, Any]
) -> None:
    thread = uuid4().hex
    refused = dev.post(AG_UI, json=run_input(thread, {"id": "m", **contents}))
    check_problem(refused, 422, "messages")
    assert run_rows(database, thread) == []


def test_refusals_are_problems(dev: httpx.Client) -> None:
    body = run_input("thread", message("Hi"))
    check_problem(dev.post(AG_UI.replace("assistant", "nobody"), json=body), 404, "nobody")
    check_problem(dev.post(AG_UI, json=body | {"threadId": "new"}), 422, "new")
    check_problem(dev.post(AG_UI, json=body | {"threadId": "not an id"}), 422, "threadId")
    check_problem(dev.post(AG_UI, json={}), 422)


def test_approval(replicas: list[httpx.Client], ledger: Path) -> None:
    here, there = replicas
    thread = uuid4().hex
    asked = events(here.post(CLERK, json=run_input(thread, message(order(ledger)))))
    assert asked[-1].type is EventType.RUN_FINISHED
    [interrupt] = asked[-1].outcome.interrupts
    wrong = {"interruptId": interrupt.id, "status": "resolved", "payload": {"approved": 1}}
    refused = there.post(CLERK, json=run_input(thread, resume=[wrong]))
    check_problem(refused, 422, "approved")
    other = wrong | {"payload": {"approved": True, "editedArgs": {"amount": "x"}}}
    check_problem(there.post(CLERK, json=run_input(thread, resume=[other])), 422, "amount: ")
    edited = wrong | {"payload": {"approved": True, "editedArgs": {"amount": 8, "ledger": str(ledger)}}}
    told = events(there.post(CLERK, json=run_input(thread, resume=[edited])))
    text = "".join(event.delta for event in told if event.type is EventType.TEXT_MESSAGE_CONTENT)
    assert text == "The tool said: Paid 8."
    assert paid(ledger) == [8]


def test_nobody_decides_for_another(locked: httpx.Client, database: URL, ledger: Path) -> None:
    ada, bob = ({"Authorization": f"Bearer {create_key(database, name)}"} for name in ("Ada", "Bob"))
    asked = run_input(uuid4().hex, message(order(ledger)))
    [interrupt] = events(locked.post(CLERK, json=asked, headers=ada))[-1].outcome.interrupts
    word = {"interruptId": interrupt.id, "status": "resolved", "payload": {"approved": True}}
    resumed = run_input(asked["threadId"], resume=[word])
    check_problem(locked.post(CLERK, json=resumed, headers=bob), 409, "waits for no decision")
    assert paid(ledger) == []
    assert said(events(locked.post(CLERK, json=resumed, headers=ada))) == "The tool said: Paid 5."


def test_a_picture_is_kept_apart_from_its_message(scripted: httpx.Client, provider: httpx.Client) -> None:
    def shown(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
        source = {"type": "data", "value": base64.b64encode(data).decode(), "mimeType": media_type}
        parts = [{"type": "text", "text": "look"}, {"type": "image", "source": source}]
        return {"id": uuid4().hex, "role": "user", "content": parts}

    thread = uuid4().hex
    found = events(scripted.post(AG_UI, json=run_input(thread, shown(png(88)))))
    assert said(found).startswith("Heard 1: look")
    [question, _] = scripted.get(f"/v1/conversations/{thread}").json()["messages"]
    [attached] = question["attachments"]
    assert scripted.get(f"/v1/attachments/{attached['id']}/content").content == png(88)
    assert (
        said(events(scripted.post(AG_UI, json=run_input(thread, message("and now?"))))) == "Heard 2: and now?"
    )
    assert data_url(png(88)) in json.dumps(provider.get("/last").json()["messages"])
    for data, media_type, words in (
        (b"PK\x03\x04", "image/png", "said to be image/png, but its contents aren't"),
        (png(), "image/gif", "said to be image/gif, but is image/png"),
    ):
        refused = scripted.post(AG_UI, json=run_input(uuid4().hex, shown(data, media_type)))
        check_problem(refused, 422, words)
