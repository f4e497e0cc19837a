"""What a conversation tells: who answered, what came out, and what was asked in other words."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine
from chassis.testing import service
from chassis.testing.client import RUNS, SSE, ask, check_problem, events, parse_events, wait_for
from chassis.tests.service import create_key

# Fields in no order of a sort, each kind of value, a default that the model leaves out.
ORDER = {
    "zone": "line one\nline two",
    "a": 1.5,
    "urgent": True,
    "done": False,
    "nothing": None,
    "tags": ["b", "a"],
    "none": [],
    "parts": [{"name": "x", "count": 2}],
    "inner": {"z": "", "a": {}},
}

# What makes each of the typed agents answer.
ASKED = {
    "orders": f"call final_result {json.dumps(ORDER)}",
    "native": f"say {json.dumps(ORDER)}",
    "list": 'call final_result {"response": ["b", "a"]}',
    "number": 'call final_result {"response": 0}',
    "made": 'call final_result {"words": "x"}',
}


def conversation_of(client: httpx.Client, conversation: str) -> Any:
    answer = client.get(f"/v1/conversations/{conversation}")
    assert answer.is_success, answer.text
    return answer.json()


def questions(client: httpx.Client, conversation: str) -> dict[str, str]:
    messages = conversation_of(client, conversation)["messages"]
    return {message["content"]: message["id"] for message in messages if message["role"] == "user"}


def replace(client: httpx.Client, conversation: str | None, message: str, words: str, **more: Any) -> Any:
    body = {"input": words, "conversation_id": conversation, "replaces": message}
    return client.post(RUNS, json=body, **more)


@pytest.fixture
def talk(scripted: httpx.Client) -> str:
    """A conversation of three questions."""
    conversation: str = ask(scripted, "one").json()["conversation_id"]
    for words in ("two", "three"):
        assert ask(scripted, words, conversation).is_success
    return conversation


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "stream"])
@pytest.mark.parametrize(("replaced", "heard"), [("one", 1), ("two", 2), ("three", 3)])
def test_a_question_can_be_asked_in_other_words(
    scripted: httpx.Client, talk: str, replaced: str, heard: int, headers: dict[str, str], database: URL
) -> None:
    asked = list(questions(scripted, talk))
    before = conversation_of(scripted, talk)
    message = questions(scripted, talk)[replaced]
    assert replace(scripted, talk, message, "anew", headers=headers).is_success
    after = conversation_of(scripted, talk)
    assert list(questions(scripted, talk)) == [*asked[: heard - 1], "anew"]
    assert after["messages"][-1]["content"] == f"Heard {heard}: anew"
    # What was said before is in the messages no more, but nothing is deleted, and what it took counts.
    assert after["usage"]["requests"] == before["usage"]["requests"] + 1
    engine = sync_engine(database)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM conversation_entries WHERE id = ANY(:ids)")
        ids = [m["id"] for m in before["messages"]]
        assert connection.scalar(query, {"ids": ids}) == 6
        tips = text("SELECT branches FROM conversations WHERE id = :id")
        assert connection.scalar(tips, {"id": talk}) == [ids[-1]]
    engine.dispose()
    # It goes on from there, and what was left can't be replaced.
    assert ask(scripted, "more", talk).json()["output"] == f"Heard {heard + 1}: more"
    check_problem(replace(scripted, talk, message, "late"), 404, message)
    assert scripted.delete(f"/v1/conversations/{talk}").status_code == 204


def test_a_question_can_be_asked_again(scripted: httpx.Client, talk: str) -> None:
    for _ in range(2):
        assert replace(scripted, talk, questions(scripted, talk)["three"], "three").is_success
    assert list(questions(scripted, talk)) == ["one", "two", "three"]


def test_a_failed_try_changes_nothing(scripted: httpx.Client, talk: str) -> None:
    before = conversation_of(scripted, talk)["messages"]
    assert replace(scripted, talk, questions(scripted, talk)["one"], "fail rate").is_error
    assert conversation_of(scripted, talk)["messages"] == before


def test_a_stopped_try_is_kept(scripted: httpx.Client, talk: str) -> None:
    message = questions(scripted, talk)["two"]
    body = {"input": "slow 300 0.05 tick", "conversation_id": talk, "replaces": message}
    with scripted.stream("POST", RUNS, json=body, headers=SSE) as stream:
        told = ""
        for chunk in stream.iter_text():
            told += chunk
            if "tick/2" in told:
                break
        run = parse_events(told)[0].data["run_id"]
        assert scripted.post(f"/v1/runs/{run}/cancel").is_success
    wait_for(lambda: scripted.get(f"/v1/runs/{run}").json()["status"] == "cancelled")
    assert list(questions(scripted, talk)) == ["one", "slow 300 0.05 tick"]
    assert ask(scripted, "more", talk).json()["output"] == "Heard 3: more"


def test_what_cannot_be_replaced(scripted: httpx.Client, talk: str) -> None:
    answer = conversation_of(scripted, talk)["messages"][1]
    assert answer["role"] == "assistant"
    other = questions(scripted, ask(scripted, "other").json()["conversation_id"])["other"]
    for message in (answer["id"], other, "unknown"):
        check_problem(replace(scripted, talk, message, "x"), 404, message)
    check_problem(replace(scripted, "unknown", other, "x"), 404, "unknown")
    check_problem(replace(scripted, None, other, "x"), 422, "conversation_id")
    check_problem(replace(scripted, talk, "\0", "x"), 422, "replaces")
    assert list(questions(scripted, talk)) == ["one", "two", "three"]


def test_somebody_elses_question_cannot_be_replaced(locked: httpx.Client, database: URL) -> None:
    mine, theirs = ({"Authorization": f"Bearer {create_key(database, name)}"} for name in ("mine", "theirs"))
    conversation = ask(locked, "secret", headers=mine).json()["conversation_id"]
    messages = locked.get(f"/v1/conversations/{conversation}", headers=mine).json()["messages"]
    check_problem(replace(locked, conversation, messages[0]["id"], "x", headers=theirs), 404, conversation)


def test_the_same_wish_twice_is_one_run(scripted: httpx.Client, talk: str) -> None:
    message = questions(scripted, talk)["two"]
    key = {"Idempotency-Key": talk}
    first, second = (replace(scripted, talk, message, "anew", headers=key) for _ in range(2))
    # By then the message is left behind; it is the same run all the same.
    assert first.json()["run_id"] == second.json()["run_id"]
    check_problem(replace(scripted, talk, questions(scripted, talk)["one"], "anew", headers=key), 422, "Key")


def test_of_two_at_once_one_counts(scripted: httpx.Client, talk: str) -> None:
    message = questions(scripted, talk)["two"]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda n: replace(scripted, talk, message, f"sleep 0.{n}"), (5, 6, 7)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert len(questions(scripted, talk)) == 2


def test_it_is_known_who_answered(scripted: httpx.Client) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]

    def agents() -> set[str]:
        listed = scripted.get("/v1/conversations").json()["conversations"]
        found = {entry["id"]: entry["agent_id"] for entry in listed}
        path = f"/v1/conversations/{conversation}"
        renamed = scripted.patch(path, json={"title": "Named"}).json()["agent_id"]
        return {found[conversation], conversation_of(scripted, conversation)["agent_id"], renamed}

    assert agents() == {"assistant"}
    body = {"input": 'call final_result {"title": "a", "summary": "b"}', "conversation_id": conversation}
    assert scripted.post("/v1/agents/tickets/runs", json=body).is_success
    assert agents() == {"tickets"}
    # One that couldn't answer hasn't.
    ask(scripted, "fail rate", conversation)
    assert agents() == {"tickets"}


@pytest.fixture(scope="module")
def typed(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service with agents that answer with more than text."""
    with service.serving(logs / "typed", database, "chassis.tests.typed:app", **model) as client:
        yield client


@pytest.mark.parametrize("agent", ASKED)
def test_an_output_is_the_same_afterwards(typed: httpx.Client, agent: str) -> None:
    client, path = typed, f"/v1/agents/{agent}/runs"
    run = client.post(path, json={"input": ASKED[agent]}).json()
    streamed = events(client.post(path, json={"input": ASKED[agent]}, headers=SSE))[-1][1]
    assert json.dumps(streamed["output"]) == json.dumps(run["output"])
    if agent in ("orders", "native"):
        assert list(run["output"]) == [*ORDER, "level"]
    for done in (run, streamed):
        messages = conversation_of(client, done["conversation_id"])["messages"]
        [told] = [message for message in messages if message.get("is_output")]
        assert told["content"] == json.dumps(run["output"])
        again = client.get(f"/v1/runs/{done['run_id']}").json()["output"]
        assert json.dumps(again) == json.dumps(run["output"])
        last = parse_events(client.get(f"/v1/runs/{done['run_id']}/events").text)[-1]
        assert json.dumps(last.data["output"]) == json.dumps(run["output"])
