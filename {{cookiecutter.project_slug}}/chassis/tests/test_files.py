"""Files: what is taken, who may have them, what models and lists see of them, and when they go."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import URL, Engine, text

from chassis.database.engine import sync_engine
from chassis.files.kinds import chars_of, kind_of, name_of
from chassis.files.settings import PDF, FileSettings
from chassis.testing.client import RUNS, SSE, check_problem, events, wait_for
from chassis.tests.files import data_url, pdf, png, upload
from chassis.tests.issuer import Issuer
from chassis.tests.service import create_key, serving
from chassis.tests.test_approval import order

TAKEN = FileSettings().types
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"


def show(
    client: httpx.Client, words: str, *files: str, conversation: str | None = None, **options: Any
) -> Any:
    body = {"input": words, "attachments": files, "conversation_id": conversation}
    return client.post(RUNS, json=body, **options)


def messages_sent(provider: httpx.Client) -> list[Any]:
    sent: list[Any] = provider.get("/last").json()["messages"]
    return sent


def rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values).all())


@pytest.fixture(scope="module")
def engine(database: URL) -> Iterator[Engine]:
    engine = sync_engine(database)
    yield engine
    engine.dispose()


# What is taken


@pytest.mark.parametrize(
    ("data", "said", "name", "kind"),
    [
        (png(), "image/png", "a.png", "image/png"),
        (png(), "", "", "image/png"),
        (png(), "image/jpeg", "a.jpg", "image/png"),
        (png(), "text/html", "a.html", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpg", "a.jpg", "image/jpeg"),
        (b"GIF89a", "", "", "image/gif"),
        (WEBP, "", "", "image/webp"),
        (pdf("x"), "application/octet-stream", "a", PDF),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "", "text/csv"),
        (b"# A", "", "a.MD", "text/markdown"),
        (b'{"a": 1}', "application/json", "", "application/json"),
        ("\ufeffä\r\n\t".encode(), "", "a.py", "text/plain"),
        (b"<svg onload='x()'>", "image/svg+xml", "a.svg", "text/plain"),
        (b"<script>x()</script>", "text/html", "a.html", "text/plain"),
    ],
)
def test_a_file_is_what_is_in_it(data: bytes, said: str, name: str, kind: str) -> None:
    assert kind_of(data, said, name, TAKEN) == kind


@pytest.mark.parametrize(
    ("data", "said", "words"),
    [
        (b"MZ\x90\0\x03", "", "it is of no known kind: send image/png"),
        (
            b"PK\x03\x04\x14\0",
            "application/zip",
            "said to be application/zip, which isn't taken: send image/png",
        ),
        (b"\0\0\0\x18ftypheic", "image/heic", "said to be image/heic, which isn't taken"),
        (b"just words", "image/png", "said to be image/png, but its contents are text"),
        (b"just words", "application/pdf", "said to be application/pdf"),
        (b"a\0b", "text/plain", "said to be text/plain, but its contents aren't"),
        (b"a\x1b[2Jb", "text/plain", "said to be text/plain, but its contents aren't"),
        ("ä".encode("latin-1"), "text/plain", "said to be text/plain, but its contents aren't"),
    ],
)
def test_what_is_not_taken_is_told(dev: httpx.Client, data: bytes, said: str, words: str) -> None:
    refused = dev.post("/v1/attachments?name=x.bin", content=data, headers={"Content-Type": said})
    check_problem(refused, 422, "The file 'x.bin' isn't taken: ")
    assert words in refused.json()["detail"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a b.png", "a b.png"),
        ('a"\r\nSet-Cookie: x.png', 'a" Set-Cookie: x.png'),
        ("\u202egnp.exe", "gnp.exe"),
        ("x" * 500 + ".png", "x" * 116 + ".png"),
        ("...", "image.png"),
        (None, "image.png"),
    ],
)
def test_names_are_made_harmless(said: str | None, name: str) -> None:
    assert name_of(said, "image/png") == name


def test_what_files_count_in_the_window() -> None:
    assert chars_of(png() + bytes(1_000_000), "image/png") == 6_000
    assert chars_of(b"x" * 50, "text/plain") == 50
    assert chars_of(pdf("a", "b", "c"), PDF) == 18_000


@pytest.mark.parametrize(
    ("types", "words"),
    [("image/png, image/svg+xml", "image/svg"), ("png", "can't be told by its contents")],
)
def test_settings_that_cannot_be(types: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FileSettings.from_env({"API_FILE_TYPES": types})
    assert FileSettings.from_env({"API_FILE_TYPES": "none"}).types == ()


@pytest.fixture(scope="module")
def strict(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service with small limits."""
    limits = {
        "API_FILE_TYPES": "image/png,text/plain",
        "API_FILE_MAX_BYTES": "1000",
        "API_FILE_MAX_COUNT": "2",
        "API_FILE_REQUEST_BYTES": "1500",
        "API_FILE_OWNER_BYTES": "4000",
        "API_FILE_URLS": "True",
        "API_KEYS_REQUIRED": "True",
    }
    with serving(logs / "strict", database, **limits, **model) as client:
        client.headers["Authorization"] = f"Bearer {create_key(database)}"
        yield client


def test_limits(strict: httpx.Client, database: URL) -> None:
    def refused(words: str, *files: str) -> Any:
        return check_problem(show(strict, "look", *files), 422 if "fewer." in words else 413, words)

    check_problem(
        strict.post("/v1/attachments", content=pdf("x")), 422, "it is application/pdf, which isn't taken: "
    )
    check_problem(
        strict.post("/v1/attachments", content=b"x" * 1001), 413, "1001 bytes, and 1000 are the most"
    )
    check_problem(strict.post("/v1/attachments", content=b""), 422, "it is empty")
    small = [upload(strict, b"x" * 100, f"{n}.txt") for n in range(3)]
    large = [upload(strict, b"x" * 900, f"{n}.txt") for n in range(4)]
    refused("may bring 2 files, not 3: send fewer.", *small)
    refused("may have 1500 bytes, not 1800", *large[:2])
    assert show(strict, "look", *small[:2]).is_success
    check_problem(
        strict.post("/v1/attachments", content=b"x" * 500), 413, "delete conversations with files first"
    )
    assert strict.delete(f"/v1/attachments/{large[0]}").status_code == 204
    upload(strict, b"x" * 500)
    # What one owner has doesn't count for another.
    other = {"Authorization": f"Bearer {create_key(database)}"}
    upload(strict, b"x" * 900, headers=other)
    form = strict.post("/v1/attachments", files={"file": b"x"}, headers=other)
    check_problem(form, 415, "not a form")
    check_problem(strict.post("/v1/attachments", content=bytes(9_000_001)), 413, "Send a smaller file.")


def test_what_is_copied_counts_too(strict: httpx.Client, database: URL, tmp_path: Path) -> None:
    """Where a file is named in a new conversation, and where a chat completion is kept since it waits for a word."""
    strict.headers["Authorization"] = f"Bearer {create_key(database)}"
    file = upload(strict, b"x" * 900)
    conversations = [show(strict, "look", file).json()["conversation_id"] for _ in range(4)]
    check_problem(show(strict, "look", file), 413, "have 3600 bytes, and 4000 are the most")
    # Nothing is copied where it was said already.
    assert show(strict, "again", file, conversation=conversations[0]).is_success
    if find_spec("chassis.protocols.openai") is None:
        return
    response = {
        "model": "assistant",
        "input": [{"role": "user", "content": [{"type": "input_file", "file_id": file}]}],
    }
    assert strict.post("/v1/responses", json=response).status_code == 413
    sent = {"type": "image_url", "image_url": {"url": data_url(b"\x89PNG\r\n\x1a\n" + bytes(892))}}
    for words, status in (("look", 200), (order(tmp_path / "ledger"), 413)):
        content = [{"type": "text", "text": words}, sent]
        body = {"model": "clerk", "messages": [{"role": "user", "content": content}]}
        assert strict.post("/v1/chat/completions", json=body).status_code == status


def test_addresses_are_passed_on_only_where_that_is_wanted(
    strict: httpx.Client, dev: httpx.Client, provider: httpx.Client, database: URL
) -> None:
    """Of pictures, and by reference: nothing is fetched here."""
    strict.headers["Authorization"] = f"Bearer {create_key(database)}"

    def send(client: httpx.Client, url: str, media_type: str) -> httpx.Response:
        part = {"type": "file", "mediaType": media_type, "url": url}
        message = {"id": "1", "role": "user", "parts": [part]}
        body = {"id": uuid4().hex, "trigger": "submit-message", "messages": [message]}
        return client.post("/v1/agents/assistant/vercel", json=body)

    picture = "https://a.example/cat.png"
    assert send(strict, picture, "image/png").is_success
    assert messages_sent(provider)[-1]["content"][0]["image_url"]["url"] == picture
    for client, url, media_type in (
        (dev, picture, "image/png"),
        (strict, "http://a.example/cat.png", "image/png"),
        (strict, "https://a.example/a.pdf", "application/pdf"),
    ):
        check_problem(
            send(client, url, media_type), 422, "A file's address isn't fetched: send the file itself"
        )


# Questions with files


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "stream"])
def test_a_picture_reaches_the_model_and_is_kept_once(
    scripted: httpx.Client, provider: httpx.Client, engine: Engine, headers: dict[str, str]
) -> None:
    picture = png(size=100)
    file = upload(scripted, picture, "My cat.png")
    answer = show(scripted, "What is it?", file, headers=headers)
    first = dict(events(answer))["run"] if headers else answer.json()
    conversation = first["conversation_id"]
    content = messages_sent(provider)[-1]["content"]
    assert content[0] == {"type": "text", "text": "What is it?"}
    assert content[1]["image_url"]["url"] == data_url(picture)
    # The next turn shows it again; a list and the messages tell of it.
    assert show(scripted, "and now?", conversation=conversation).is_success
    assert data_url(picture) in json.dumps(messages_sent(provider))
    read = scripted.get(f"/v1/conversations/{conversation}").json()
    told = {"id": file, "name": "My cat.png", "media_type": "image/png", "bytes": len(picture)}
    assert (read["messages"][0]["content"], read["messages"][0]["attachments"]) == ("What is it?", [told])
    assert read["title"] == "What is it?"
    listed = scripted.get("/v1/conversations").json()["conversations"]
    [mine] = [one for one in listed if one["id"] == conversation]
    assert mine["attachments"] == [{"name": "My cat.png", "media_type": "image/png"}]
    # Its bytes are in no message.
    [kept] = rows(
        engine,
        "SELECT max(length(message::text)) AS most FROM conversation_entries WHERE id = ANY(:ids)",
        ids=[message["id"] for message in read["messages"]],
    )
    assert kept.most < 1_500
    content = scripted.get(f"/v1/attachments/{file}/content")
    assert content.content == picture
    assert content.headers["content-type"] == "image/png"
    assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''My%20cat.png"
    assert content.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in content.headers["content-security-policy"]
    assert scripted.get(f"/v1/attachments/{file}").json()["conversation_id"] == conversation
    # It goes with its conversation.
    assert scripted.delete(f"/v1/conversations/{conversation}").status_code == 204
    check_problem(scripted.get(f"/v1/attachments/{file}"), 404)
    assert rows(engine, "SELECT 1 FROM api_files WHERE id = :id", id=UUID(file)) == []


def test_a_file_may_be_all_that_is_said(scripted: httpx.Client, provider: httpx.Client) -> None:
    file = upload(scripted, "Zürich, 1848".encode(), "notes.md")
    run = show(scripted, "", file)
    assert "Zürich, 1848" in json.dumps(messages_sent(provider), ensure_ascii=False)
    read = scripted.get(f"/v1/conversations/{run.json()['conversation_id']}").json()
    assert read["title"] == read["messages"][0]["content"] == "[notes.md]"
    check_problem(show(scripted, ""), 422, "input must say something, or attachments name files")


def test_a_document_goes_as_a_file(scripted: httpx.Client, provider: httpx.Client) -> None:
    document = pdf("Hello")
    assert show(scripted, "Read it", upload(scripted, document, "a.pdf")).is_success
    [part] = [part for part in messages_sent(provider)[-1]["content"] if part["type"] == "file"]
    assert part["file"]["file_data"] == data_url(document, PDF)


def test_a_file_that_was_deleted_is_named(scripted: httpx.Client, provider: httpx.Client) -> None:
    file = upload(scripted, png(), "gone.png")
    conversation = show(scripted, "look", file).json()["conversation_id"]
    assert scripted.delete(f"/v1/attachments/{file}").status_code == 204
    assert show(scripted, "and now?", conversation=conversation).is_success
    assert "[gone.png]" in json.dumps(messages_sent(provider))
    assert "base64" not in json.dumps(messages_sent(provider))
    check_problem(show(scripted, "look", file), 404, "has to be said within a day")


def test_the_same_request_with_other_files_is_another(scripted: httpx.Client) -> None:
    one, two = upload(scripted, png(1)), upload(scripted, png(2))
    key = {"Idempotency-Key": uuid4().hex}
    first = show(scripted, "look", one, headers=key).json()
    assert show(scripted, "look", one, headers=key).json()["run_id"] == first["run_id"]
    for files in ((two,), (one, two), ()):
        check_problem(show(scripted, "look", *files, headers=key), 422, "another request before")


def test_a_file_may_be_shown_in_two_conversations(scripted: httpx.Client, provider: httpx.Client) -> None:
    file = upload(scripted, png(7))
    one, two = (show(scripted, "look", file).json()["conversation_id"] for _ in range(2))
    assert scripted.delete(f"/v1/conversations/{one}").status_code == 204
    assert show(scripted, "and now?", conversation=two).is_success
    assert data_url(png(7)) in json.dumps(messages_sent(provider))
    [shown] = scripted.get(f"/v1/conversations/{two}").json()["messages"][0]["attachments"]
    assert scripted.get(f"/v1/attachments/{shown['id']}/content").content == png(7)


@pytest.mark.parametrize("order", ["fail server", "slow 300 0.05 tick"], ids=["failed", "stopped"])
def test_what_did_not_end_well_loses_no_file(scripted: httpx.Client, order: str) -> None:
    file = upload(scripted, png(), "kept.png")
    if order.startswith("fail"):
        assert show(scripted, order, file).is_error
        assert show(scripted, "once more", file).is_success
        return
    with scripted.stream("POST", RUNS, json={"input": order, "attachments": [file]}, headers=SSE) as stream:
        told = ""
        for chunk in stream.iter_text():
            told += chunk
            if "/2 " in told:
                break
        started = json.loads(told.split("data: ", 1)[1].split("\n", 1)[0])
        assert scripted.post(f"/v1/runs/{started['run_id']}/cancel").is_success
    path = f"/v1/conversations/{started['conversation_id']}"
    question = wait_for(lambda: scripted.get(path).json()["messages"])[0]
    assert question["attachments"][0]["name"] == "kept.png"


def test_asked_anew_with_the_same_file(scripted: httpx.Client, provider: httpx.Client) -> None:
    file = upload(scripted, png(9))
    conversation = show(scripted, "look", file).json()["conversation_id"]
    [question, _] = scripted.get(f"/v1/conversations/{conversation}").json()["messages"]
    body = {
        "input": "anew",
        "attachments": [file],
        "conversation_id": conversation,
        "replaces": question["id"],
    }
    assert scripted.post(RUNS, json=body).is_success
    assert data_url(png(9)) in json.dumps(messages_sent(provider))
    read = scripted.get(f"/v1/conversations/{conversation}").json()["messages"]
    assert read[0]["content"] == "anew"
    assert read[0]["attachments"][0]["id"] == file


def test_old_files_fall_out_of_the_window(
    database: URL, logs: Path, model: dict[str, str], provider: httpx.Client
) -> None:
    settings = {"AGENT_HISTORY_CHARS": "20000", "API_FILE_REQUEST_BYTES": "900"}
    with serving(logs / "window", database, **settings, **model) as client:
        conversation = None
        for red in range(5):
            file = upload(client, png(red), f"{red}.png")
            run = show(client, f"look {red}", file, conversation=conversation)
            conversation = run.json()["conversation_id"]
        sent = json.dumps(messages_sent(provider))
        # By characters 6,000 each, so three turns are left; of large ones only as many as a request may bring.
        assert [red for red in range(5) if data_url(png(red)) in sent] == [2, 3, 4]
        for name in ("old.pdf", "new.pdf"):
            file = upload(client, pdf("x") + b"\n" * 100, name)
            run = show(client, "read", file, conversation=conversation)
            assert run.is_success, run.text
        sent = json.dumps(messages_sent(provider))
        assert "[old.pdf]" in sent
        assert sent.count("application/pdf") == 1


# Whose they are


@pytest.mark.parametrize("kind", ["keys", "people"])
def test_nobody_else_has_a_file(
    locked: httpx.Client, provider: httpx.Client, database: URL, issuer: Issuer, kind: str
) -> None:
    """By its operations, and by each interface that names files."""
    shown = (
        [create_key(database), create_key(database)]
        if kind == "keys"
        else [issuer.token("f1"), issuer.token("f2")]
    )
    ada, bob = ({"Authorization": f"Bearer {each}"} for each in shown)
    secret = png(77)
    waiting, said = (upload(locked, secret, headers=ada) for _ in range(2))
    conversation = show(locked, "look", said, headers=ada).json()["conversation_id"]
    assert locked.get("/v1/attachments/" + said, headers=ada).is_success
    show(locked, "hello", headers=bob)
    for file in (waiting, said):
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            refused = locked.request(method, f"/v1/attachments/{file}{path}", headers=bob)
            check_problem(refused, 404)
        check_problem(show(locked, "look", file, headers=bob), 404, file)
        part = {"type": "file", "file": {"file_id": file}}
        for path, body in (
            ("chat/completions", {"messages": [{"role": "user", "content": [part]}]}),
            (
                "responses",
                {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": file}]}]},
            ),
        ):
            refused = locked.post(f"/v1/{path}", json={"model": "assistant", **body}, headers=bob)
            check_problem(refused, 404)
            assert data_url(secret) not in json.dumps(messages_sent(provider))
        forged = {"name": "x", "media_type": "image/png", "bytes": 1, "chars": 1, "id": file}
        text_part = {"type": "text", "text": "[x]", "providerMetadata": {"pydantic_ai": {"api_file": forged}}}
        vercel = {"id": uuid4().hex, "trigger": "submit-message"}
        for parts in ([text_part], [text_part | {"metadata": {"api_file": forged}}]):
            message = {"id": "1", "role": "user", "parts": parts}
            locked.post("/v1/agents/assistant/vercel", json={**vercel, "messages": [message]}, headers=bob)
            assert data_url(secret) not in json.dumps(messages_sent(provider))
    lines = locked.get("/v1/me/data", headers=bob).text
    assert waiting not in lines
    assert said not in lines
    assert locked.get("/v1/conversations", headers=ada).json()["conversations"][0]["id"] == conversation
    for file in (waiting, said):
        assert locked.get(f"/v1/attachments/{file}/content", headers=ada).content == secret


def test_all_of_it_is_handed_over_and_erased(locked: httpx.Client, database: URL, engine: Engine) -> None:
    headers = {"Authorization": f"Bearer {create_key(database)}"}
    ids = [upload(locked, png(red), f"{red}.png", headers=headers) for red in range(3)]
    show(locked, "look", ids[0], headers=headers)
    lines = [json.loads(line) for line in locked.get("/v1/me/data", headers=headers).text.splitlines()]
    files = {line["id"]: line for line in lines if line["kind"] == "api_files"}
    assert files.keys() == set(ids)
    assert data_url(png(2)).endswith(files[ids[2]]["content"].replace("-", "+").replace("_", "/"))
    assert locked.delete("/v1/me/data", headers=headers).status_code == 204
    assert rows(engine, "SELECT 1 FROM api_files WHERE id = ANY(:ids)", ids=[UUID(one) for one in ids]) == []


def test_what_was_never_said_goes(dev: httpx.Client, engine: Engine) -> None:
    old, new = upload(dev, png()), upload(dev, png())
    said = upload(dev, png())
    show(dev, "look", said)
    with engine.begin() as connection:
        query = text("UPDATE api_files SET created_at = now() - interval '25 hours' WHERE id = ANY(:ids)")
        connection.execute(query, {"ids": [UUID(old), UUID(said)]})
    upload(dev, png())
    assert [dev.get(f"/v1/attachments/{file}").status_code for file in (old, new, said)] == [404, 200, 200]
