"""The stream that Vercel's AI SDK reads. Its own client from npm is tested with the template."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import URL

from tests.client import check_problem, run_rows, wait_for
from tests.provider import SECRET

VERCEL = "/v1/agents/assistant/vercel"


def message(text: str, role: str = "user") -> dict[str, Any]:
    return {"id": uuid4().hex, "role": role, "parts": [{"type": "text", "text": text}]}


def submit(chat: str, *messages: dict[str, Any], trigger: str = "submit-message") -> dict[str, Any]:
    return {"id": chat, "trigger": trigger, "messages": list(messages)}


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1", response.text
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


def said(response: httpx.Response) -> str:
    return "".join(chunk["delta"] for chunk in chunks(response) if chunk["type"] == "text-delta")


def texts(client: httpx.Client, chat: str) -> list[str]:
    found = client.get(f"/v1/conversations/{chat}").json()["messages"]
    return [item["content"] for item in found if item["role"] == "user"]


def test_conversation_is_kept_under_the_id_of_the_chat(dev: httpx.Client, database: URL) -> None:
    chat = uuid4().hex
    first = dev.post(VERCEL, json=submit(chat, message("What time is it?")))
    types = [chunk["type"] for chunk in chunks(first)]
    assert types[0] == "start"
    assert types[-1] == "finish"
    assert {"tool-input-available", "tool-output-available", "data-conversation-saved"} <= set(types)
    assert "The tool current_time says" in said(first)
    # The client may send all messages or only the new one.
    second = dev.post(VERCEL, json=submit(chat, message("And now?")))
    assert "Before that you said: What time is it?" in said(second)
    assert texts(dev, chat) == ["What time is it?", "And now?"]
    assert dev.get(f"/v1/conversations/{chat}").json()["title"] == "What time is it?"
    rows = run_rows(database, chat)
    assert [(row.status, row.usage["requests"]) for row in rows] == [("succeeded", 2), ("succeeded", 1)]


def test_answer_is_made_again_and_a_question_edited(dev: httpx.Client) -> None:
    chat, question, more = uuid4().hex, message("Who am I?"), message("Sure?")
    dev.post(VERCEL, json=submit(chat, question))
    dev.post(VERCEL, json=submit(chat, more))
    shown = question, message("You are you.", "assistant"), more
    again = dev.post(VERCEL, json=submit(chat, *shown, trigger="regenerate-message"))
    assert "You said: Sure?\nBefore that you said: Who am I?" in said(again)
    assert texts(dev, chat) == ["Who am I?", "Sure?"]
    question["parts"][0]["text"] = "Where am I?"
    dev.post(VERCEL, json=submit(chat, question))
    assert texts(dev, chat) == ["Where am I?"]
    unknown = dev.post(VERCEL, json=submit(chat, message("never sent"), trigger="regenerate-message"))
    [error] = [chunk["errorText"] for chunk in chunks(unknown) if chunk["type"] == "error"]
    assert "not in the stored conversation" in error
    assert texts(dev, chat) == ["Where am I?"]


def test_failure_is_an_event_without_secrets(scripted: httpx.Client, database: URL) -> None:
    chat = uuid4().hex
    response = scripted.post(VERCEL, json=submit(chat, message("fail rate")))
    [error] = [chunk["errorText"] for chunk in chunks(response) if chunk["type"] == "error"]
    assert "no more requests for now" in error
    assert SECRET not in response.text
    [row] = run_rows(database, chat)
    assert (row.status, row.error) == ("failed", error)


def test_one_writer_at_a_time(scripted: httpx.Client) -> None:
    chat = uuid4().hex
    with scripted.stream("POST", VERCEL, json=submit(chat, message("slow 4 0.3 x"))) as response:
        lines = response.iter_lines()
        next(lines)
        check_problem(scripted.post(VERCEL, json=submit(chat, message("Me too"))), 409, "underway")
        assert ": ping" in list(lines)
    assert texts(scripted, chat) == ["slow 4 0.3 x"]


def test_run_is_cancelled_when_the_client_leaves(
    scripted: httpx.Client, provider: httpx.Client, database: URL
) -> None:
    chat, before = uuid4().hex, provider.get("/stats").json()["cancelled"]
    with scripted.stream("POST", VERCEL, json=submit(chat, message("sleep 60"))) as response:
        lines = response.iter_lines()
        next(lines)
        wait_for(lambda: provider.get("/stats").json()["open"])
    assert wait_for(lambda: [row.status for row in run_rows(database, chat)] == ["cancelled"], 2)
    assert wait_for(lambda: provider.get("/stats").json()["cancelled"] > before, 2)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (VERCEL.replace("assistant", "nobody"), submit("chat", message("Hi")), 404),
        (VERCEL, submit("new", message("Hi")), 422),
        (VERCEL, submit("not an id", message("Hi")), 422),
        (VERCEL, submit("chat", message("Hi") | {"parts": [{"type": "reasoning", "text": "Hm"}]}), 422),
        (VERCEL, {"messages": []}, 422),
        (VERCEL, submit("chat", message("Hi")) | {"trigger": "else"}, 422),
    ],
)
def test_refusals_are_problems(dev: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    check_problem(dev.post(path, json=body), status)
    # No form on a foreign page can send what isn't called JSON, so none can act in a user's name.
    check_problem(dev.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain"}), 422)
