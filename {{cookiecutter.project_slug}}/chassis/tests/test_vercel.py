"""The stream that Vercel's AI SDK reads. Its own client from npm is tested with the template."""

import base64
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import URL

from chassis.testing.client import check_problem, counts, run_rows, wait_for
from chassis.testing.provider import SECRET
from chassis.tests.files import data_url, png

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


PICTURE = data_url(png() + bytes(100_000 - len(png())))


def file(url: str, media_type: str = "image/png") -> dict[str, Any]:
    return {"type": "file", "mediaType": media_type, "url": url}


def with_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    return message("") | {"parts": list(parts)}


@pytest.mark.parametrize(
    ("parts", "content", "attachments", "title"),
    [
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\n\ntwo", None, "one two"),
        (
            [{"type": "text", "text": "What is it?"}, file(PICTURE)],
            "What is it?",
            [{"name": "image.png", "media_type": "image/png", "bytes": 100_000}],
            "What is it?",
        ),
        (
            [file(PICTURE) | {"filename": "cat.png"}],
            "[cat.png]",
            [{"name": "cat.png", "media_type": "image/png", "bytes": 100_000}],
            "[cat.png]",
        ),
    ],
    ids=["two texts", "text and picture", "a picture that has a name"],
)
def test_message_of_several_parts_is_kept_and_shown(
    scripted: httpx.Client, parts: list[Any], content: str, attachments: Any, title: str
) -> None:
    chat = uuid4().hex
    assert said(scripted.post(VERCEL, json=submit(chat, with_parts(*parts))))
    conversation = scripted.get(f"/v1/conversations/{chat}").json()
    first = conversation["messages"][0]
    kept = [one.pop("id") for one in first.get("attachments", ())]
    assert (first["role"], first["content"], first.get("attachments")) == ("user", content, attachments)
    for one in kept:
        assert data_url(scripted.get(f"/v1/attachments/{one}/content").content) == PICTURE
    assert conversation["title"] == title


def test_picture_counts_as_what_it_costs(scripted: httpx.Client, provider: httpx.Client) -> None:
    chat = uuid4().hex
    scripted.post(VERCEL, json=submit(chat, message("the first")))
    scripted.post(VERCEL, json=submit(chat, with_parts({"type": "text", "text": "this"}, file(PICTURE))))
    assert said(scripted.post(VERCEL, json=submit(chat, message("and now?")))) == "Heard 3: and now?"
    assert PICTURE in str(provider.get("/last").json()["messages"])


def test_photos_of_a_whole_history_fit(scripted: httpx.Client) -> None:
    chat = uuid4().hex
    photo = f"data:image/jpeg;base64,{base64.b64encode(bytes(2_000_000)).decode()}"
    shown = [
        with_parts({"type": "text", "text": "this"}, file(photo, "image/jpeg")),
        message("Nice.", "assistant"),
    ]
    answer = scripted.post(VERCEL, json=submit(chat, *shown, *shown, message("and now?")))
    assert said(answer) == "Heard 1: and now?"
    body = submit(chat, message("x" * 9_000_000))
    check_problem(
        scripted.post(VERCEL, json=body), 413, "9000000 bytes at most. Send only the newest message"
    )
    check_problem(scripted.post(VERCEL.replace("vercel", "runs"), json=body), 413, "1000000 bytes at most.")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("blob:https://a.example/1", "not blob:"),
        ("s3://bucket/key", "not s3:"),
        ("gs://bucket/key", "not gs:"),
        ("file:///etc/passwd", "not file:"),
        ("ftp://a.example/cat.png", "not ftp:"),
        ("https://a.example/cat.png", "A file's address isn't fetched"),
        ("http://127.0.0.1/x.png", "A file's address isn't fetched"),
        ("http://169.254.169.254/latest/meta-data/x.png", "A file's address isn't fetched"),
        (data_url(b"GIF89a"), "it is said to be image/png, but is image/gif"),
        (data_url(b"PK\x03\x04"), "said to be image/png, but its contents aren't"),
    ],
)
def test_file_that_would_be_left_out_is_refused(
    dev: httpx.Client, database: URL, url: str, words: str
) -> None:
    chat = uuid4().hex
    refused = dev.post(VERCEL, json=submit(chat, with_parts({"type": "text", "text": "this"}, file(url))))
    check_problem(refused, 422, words)
    assert run_rows(database, chat) == []


def test_client_that_resumes_hears_that_nothing_runs(dev: httpx.Client) -> None:
    answer = dev.get(f"{VERCEL}/{uuid4().hex}/stream")
    assert (answer.status_code, answer.content) == (204, b"")


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
    assert wait_for(lambda: [row.status for row in run_rows(database, chat)] == ["cancelled"], 8)
    assert wait_for(lambda: provider.get("/stats").json()["cancelled"] > before, 8)


def test_run_that_is_stopped_is_aborted(
    scripted: httpx.Client, provider: httpx.Client, database: URL
) -> None:
    chat, before = uuid4().hex, counts(provider)
    with scripted.stream("POST", VERCEL, json=submit(chat, message("sleep 60"))) as response:
        wait_for(lambda: counts(provider)["open"] > before["open"])
        [row] = run_rows(database, chat)
        assert scripted.post(f"/v1/runs/{row.id}/cancel").is_success
        response.read()
    types = [chunk["type"] for chunk in chunks(response)]
    assert "abort" in types
    assert "error" not in types
    assert [row.status for row in run_rows(database, chat)] == ["cancelled"]


def test_what_the_client_has_stopped_is_kept(scripted: httpx.Client, database: URL) -> None:
    chat, question = uuid4().hex, message("slow 300 0.05 tick")

    def stop(*messages: dict[str, Any], trigger: str = "submit-message") -> None:
        with scripted.stream("POST", VERCEL, json=submit(chat, *messages, trigger=trigger)) as response:
            next(line for line in response.iter_lines() if "tick/3" in line)
        wait_for(lambda: run_rows(database, chat)[-1].status == "cancelled")

    def shown() -> list[tuple[str, str]]:
        found = scripted.get(f"/v1/conversations/{chat}").json()["messages"]
        return [(item["role"], item["content"][:20]) for item in found]

    stop(question)
    half = [("user", "slow 300 0.05 tick"), ("assistant", "tick/1 tick/2 tick/3")]
    assert shown() == half
    history = [question, message("tick/1 tick/2 tick/3", "assistant")]
    assert (
        said(scripted.post(VERCEL, json=submit(chat, *history, message("and now?")))) == "Heard 2: and now?"
    )
    assert shown()[:2] == half
    # Another answer that is stopped leaves what was there.
    before = shown()
    stop(question, trigger="regenerate-message")
    assert shown() == before


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


def test_what_is_asked_as_soon_as_the_last_run_was_stopped_is_answered(scripted: httpx.Client) -> None:
    # As `stop()` and the next `sendMessage()` do: the run has yet to write its end when the question comes.
    for _ in range(3):
        chat = uuid4().hex
        with scripted.stream("POST", VERCEL, json=submit(chat, message("slow 50 0.2 x"))) as answer:
            next(text for text in answer.iter_text() if "x/1" in text)
        assert said(scripted.post(VERCEL, json=submit(chat, message("and now")))) == "Heard 2: and now"
