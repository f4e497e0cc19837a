"""Files by OpenAI's API, as its official client sends them."""

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx
import openai
import pytest
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine
from chassis.files.settings import PDF
from chassis.testing.client import check_problem
from chassis.tests.files import data_url, pdf, png, upload
from chassis.tests.test_openai_api import client_of

PICTURE = data_url(png(3))


@pytest.fixture
def client(scripted: httpx.Client) -> Iterator[openai.OpenAI]:
    with client_of(scripted) as client:
        yield client


def said(words: str, *parts: Any, form: str = "text") -> Any:
    return [{"role": "user", "content": [{"type": form, "text": words}, *parts]}]


def picture(url: str = PICTURE) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def document(data: str, name: str = "a.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, "filename": name}}


def complete(client: openai.OpenAI, messages: Any) -> str:
    answer = client.chat.completions.create(model="assistant", messages=messages)
    return str(answer.choices[0].message.content)


def respond(client: openai.OpenAI, words: Any, **options: Any) -> Any:
    return client.responses.create(**cast("Any", {"model": "assistant", "input": words} | options))


def sent(provider: httpx.Client) -> str:
    return json.dumps(provider.get("/last").json()["messages"])


def test_chat_completions_take_files(client: openai.OpenAI, provider: httpx.Client) -> None:
    read = data_url(pdf("x"), PDF)
    assert complete(client, said("look", picture(), document(read))).startswith("Heard 1: look")
    assert PICTURE in sent(provider)
    assert read in sent(provider)
    # The client sends all of it again each time.
    history = [*said("look", picture()), {"role": "assistant", "content": "A square."}, *said("and now?")]
    assert complete(client, history) == "Heard 2: and now?"
    assert PICTURE in sent(provider)


def test_a_file_of_an_earlier_turn_that_is_not_taken_is_left_out(
    client: openai.OpenAI, provider: httpx.Client
) -> None:
    for part in (
        picture("data:image/png;base64,AA=="),
        document("!"),
        {"type": "file", "file": {"file_id": "x"}},
    ):
        history = [*said("look", part), {"role": "assistant", "content": "Hm."}, *said("and now?")]
        assert complete(client, history) == "Heard 2: and now?"
        assert f"[{part['type']}, which was left out]" in sent(provider)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([picture("https://a.example/cat.png")], "A file's address isn't fetched: send the file itself"),
        ([picture("http://169.254.169.254/latest/meta-data")], "isn't fetched"),
        ([picture("data:image/png;base64,AA==")], "said to be image/png, but its contents aren't"),
        ([picture("data:image/png,AA")], "can't be read: send the file as a data: URL"),
        ([picture("file:///etc/passwd")], "can't be read"),
        ([document("data:application/pdf;base64,UEsDBA==", "x.pdf")], "'x.pdf' isn't taken"),
        ([{"type": "file", "file": {}}], "can't be read"),
        ([{"type": "file", "file": {"file_id": "file-1"}}], "There is no file 'file-1'"),
        ([picture()] * 11, "10 files, not 11"),
    ],
)
def test_what_is_not_taken_is_told(client: openai.OpenAI, parts: list[Any], words: str) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as caught:
        complete(client, said("look", *parts))
    assert caught.value.status_code in {404, 413, 422}
    assert caught.value.param == "messages"
    kinds = {"image_url": "input_image", "file": "input_file"}
    inputs = [
        {"type": kinds[part["type"]], "image_url": part["image_url"]["url"]}
        if "image_url" in part
        else {"type": kinds[part["type"]], **part["file"]}
        for part in parts
    ]
    with pytest.raises(openai.APIStatusError, match=words) as caught:
        respond(client, said("look", *inputs, form="input_text"))
    assert caught.value.param == "input"


def test_responses_keep_files(
    client: openai.OpenAI, scripted: httpx.Client, provider: httpx.Client, database: URL
) -> None:
    parts = [
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        {"type": "input_file", "filename": "b.csv", "file_data": data_url(b"a,b\n1,2", "text/csv")},
        {"type": "input_file", "file_id": upload(scripted, pdf("x"), "c.pdf")},
    ]
    first = respond(client, said("look", *parts, form="input_text"))
    for words in (PICTURE, "a,b", data_url(pdf("x"), PDF)):
        assert words.replace("\n", "\\n") in sent(provider)
    again = respond(client, "and now?", previous_response_id=first.id)
    assert again.output_text == "Heard 2: and now?"
    assert PICTURE in sent(provider)
    conversation = first.conversation.id
    [question, *_] = scripted.get(f"/v1/conversations/{conversation}").json()["messages"]
    assert [shown["name"] for shown in question["attachments"]] == ["image.png", "b.csv", "c.pdf"]
    engine = sync_engine(database)
    with engine.connect() as connection:
        query = text("SELECT message::text FROM conversation_entries WHERE id = :id")
        assert "base64" not in str(connection.scalar(query, {"id": question["id"]}))
    engine.dispose()


def test_the_same_request_with_another_file_is_another(client: openai.OpenAI) -> None:
    def ask(red: int) -> Any:
        part = {"type": "input_image", "image_url": data_url(png(red))}
        options = {"extra_headers": {"Idempotency-Key": "files"}}
        return respond(client, said("look", part, form="input_text"), **options)

    first = ask(1)
    assert ask(1).id == first.id
    with pytest.raises(openai.UnprocessableEntityError, match="another request before"):
        ask(2)


def test_what_is_not_to_be_kept_is_not(client: openai.OpenAI, scripted: httpx.Client, database: URL) -> None:
    engine = sync_engine(database)
    query = text("SELECT count(*) FROM api_files WHERE content = :content")
    part = {"type": "input_image", "image_url": data_url(png(201))}
    respond(client, said("look", part, form="input_text"), store=False)
    complete(client, said("look", picture(data_url(png(201)))))
    with engine.connect() as connection:
        assert connection.scalar(query, {"content": png(201)}) == 0
    engine.dispose()
    body = {"model": "assistant", "messages": said("x" * 9_000_000)}
    check_problem(scripted.post("/v1/chat/completions", json=body), 413, "Send fewer files, or smaller ones")
