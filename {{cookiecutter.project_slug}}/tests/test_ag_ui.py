"""The events of the AG-UI protocol, checked by its own classes."""

from typing import Any
from uuid import uuid4

import httpx
from ag_ui.core import Event, EventType
from pydantic import TypeAdapter
from sqlalchemy import URL

from tests.client import check_problem, run_rows, wait_for
from tests.provider import SECRET

AG_UI = "/v1/agents/assistant/ag-ui"
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
    assert wait_for(lambda: [row.status for row in run_rows(database, thread)] == ["cancelled"], 2)


def test_refusals_are_problems(dev: httpx.Client) -> None:
    body = run_input("thread", message("Hi"))
    check_problem(dev.post(AG_UI.replace("assistant", "nobody"), json=body), 404, "nobody")
    check_problem(dev.post(AG_UI, json=body | {"threadId": "new"}), 422, "new")
    check_problem(dev.post(AG_UI, json=body | {"threadId": "not an id"}), 422, "threadId")
    check_problem(dev.post(AG_UI, json={}), 422)
