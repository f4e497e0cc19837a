"""What the tests say to the service, and how they read its answers."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import httpx
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine

RUNS = "/v1/agents/assistant/runs"
SSE = {"Accept": "text/event-stream"}

T = TypeVar("T")


class Event(NamedTuple):
    """A server-sent event."""

    id: int
    name: str
    data: Any


def ask(
    client: httpx.Client, words: str, conversation_id: str | None = None, **options: Any
) -> httpx.Response:
    return client.post(RUNS, json={"input": words, "conversation_id": conversation_id}, **options)


def parse_events(stream: str) -> list[Event]:
    """The events of a stream; one that was cut off is left out, as are the comments."""
    found = []
    for block in stream.split("\n\n")[:-1]:
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            assert fields.keys() == {"id", "event", "data"}
            found.append(Event(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of an answer from its start, each as its name and data."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found = parse_events(response.text)
    assert [event.id for event in found] == list(range(1, len(found) + 1))
    return [(event.name, event.data) for event in found]


def check_problem(response: httpx.Response, status: int, words: str = "") -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert words in document.get("detail", "")
    return document


def counts(provider: httpx.Client) -> dict[str, int]:
    """How many answers the provider is giving, has given, and broke off because the service hung up."""
    found: dict[str, int] = provider.get("/stats").json()
    return found


def release(provider: httpx.Client) -> None:
    """Let the provider go on with the answers that it holds."""
    provider.post("/release").raise_for_status()


def run_rows(database: URL, conversation_id: str) -> list[Any]:
    """The conversation's rows in `runs`, oldest first."""
    engine = sync_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT * FROM runs WHERE conversation_id = :id ORDER BY started_at"),
            {"id": conversation_id},
        ).all()
    engine.dispose()
    return list(rows)


def wait_for(find: Callable[[], T], seconds: float = 10) -> T:
    """Wait until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"In {seconds} s there was nothing but {found!r}."
        time.sleep(0.02)
    return found
