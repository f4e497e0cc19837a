"""Runs that outlive their requests, by two replicas on one database: found, followed, stopped, told of, and begun again."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import URL, Engine, text

from chassis.agents.registry import RegisteredAgent
from chassis.app import Schedule, create_app
from chassis.background.settings import BackgroundSettings
from chassis.background.webhooks import Refused, Webhooks, is_public
from chassis.database.engine import sync_engine
from chassis.errors import RunError
from chassis.settings import SettingsError
from chassis.testing.client import RUNS, SSE, ask, check_problem, parse_events, release, wait_for
from chassis.testing.service import clean_env, create_key, service, unreachable, upgrade, users_command
from chassis.tests import background_app
from chassis.tests.collector import collecting
from chassis.tests.files import png
from chassis.tests.test_load import slow, told

APP = "chassis.tests.background_app:app"
ASYNC = {"Prefer": "respond-async"}
SECRETS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
UNDERWAY = ("queued", "running")
STALE_SECONDS = 3
EVERY_SECONDS = 5
# How many runs are underway when a process dies, and how many seconds the database is away; more where time is.
MANY = int(os.environ.get("TEST_BACKGROUND_RUNS", "10"))
TOOL_SECONDS = 4 + MANY // 5
OUTAGE_SECONDS = float(os.environ.get("TEST_OUTAGE_SECONDS", 2 * STALE_SECONDS))


class Receiver(NamedTuple):
    """Somebody who is told of ends: under which address, and what came there, newest last."""

    address: str
    heard: list[tuple[dict[str, str], bytes]]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """It answers the first message of an address that ends in a number with that status, and all else with 204."""
    heard: list[tuple[dict[str, str], bytes]] = []
    seen: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            first = self.path.rpartition("/")[2]
            self.send_response(204 if self.path in seen or not first.isdecimal() else int(first))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            seen.add(self.path)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield Receiver(f"http://localhost:{server.server_port}", heard)
    server.shutdown()


class Replicas(NamedTuple):
    """Two processes of the service, what starts a third, and the file that their tools write to."""

    clients: tuple[httpx.Client, httpx.Client]
    third: Callable[..., Any]
    database: URL
    ledger: Path

    def lines(self) -> Counter[str]:
        return Counter(
            self.ledger.read_text(encoding="utf-8").split("\n")[:-1] if self.ledger.exists() else ()
        )


@pytest.fixture(scope="module")
def settings(
    model: dict[str, str], receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return {
        **model,
        "AGENT_BACKGROUND": "True",
        "AGENT_STALE_SECONDS": str(STALE_SECONDS),
        "AGENT_WEBHOOK_SECRETS": ", ".join(f"whsec_{secret}" for secret in SECRETS),
        "AGENT_WEBHOOK_HOSTS": receiver.address.removeprefix("http://"),
        "LEDGER": str(tmp_path_factory.mktemp("ledger") / "lines"),
    }


@pytest.fixture(scope="module")
def replicas(new_database: Callable[[], URL], logs: Path, settings: dict[str, str]) -> Iterator[Replicas]:
    url = new_database()
    upgrade(url)

    def start(name: str, **more: str) -> Any:
        return service(logs / f"background {name}", url, APP, **settings, **more)

    with (
        start("one", SCHEDULE=f"* * * * * */{EVERY_SECONDS}") as one,
        start("two", SCHEDULE=f"* * * * * */{EVERY_SECONDS}") as two,
        httpx.Client(base_url=one.address, timeout=30) as first,
        httpx.Client(base_url=two.address, timeout=30) as second,
    ):
        yield Replicas((first, second), start, url, Path(settings["LEDGER"]))


def put(client: httpx.Client, words: str, conversation_id: str | None = None, **body: Any) -> str:
    """Have it run in the background, and return where it is found."""
    asked = {"input": words, "conversation_id": conversation_id, **body}
    response = client.post(RUNS, json=asked, headers=ASYNC)
    assert response.status_code == 202, response.text
    assert response.headers["Preference-Applied"] == "respond-async"
    assert response.json()["status"] == "queued"
    assert response.headers["Location"] == f"/v1/runs/{response.json()['run_id']}"
    return str(response.headers["Location"])


def end(client: httpx.Client, path: str, seconds: float = 60) -> dict[str, Any]:
    """Wait for the end of a run, and return it."""
    wait_for(lambda: not is_underway(client, path), seconds)
    found: dict[str, Any] = client.get(path).json()
    return found


def heard_of(receiver: Receiver, run_id: str) -> list[dict[str, Any]]:
    """Wait until an end is told, and return what came of it."""

    def came() -> list[dict[str, Any]]:
        messages = [json.loads(body) for _, body in receiver.heard]
        return [message for message in messages if message["data"]["run_id"] == run_id]

    wait_for(lambda: bool(came()), 60)
    return came()


def is_idle(*clients: httpx.Client) -> bool:
    return not any(client.get("/ready").json()["runs"]["underway"] for client in clients)


def is_underway(client: httpx.Client, path: str) -> bool:
    return client.get(path).json()["status"] in UNDERWAY


def released(provider: httpx.Client, client: httpx.Client, path: str) -> bool:
    release(provider)
    return not is_underway(client, path)


def is_running(client: httpx.Client, path: str) -> bool:
    return bool(client.get(path).json()["status"] == "running")


def rows(url: URL, query: str, **values: Any) -> list[Any]:
    engine = sync_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text(query), values).all()
    engine.dispose()
    return list(found)


def change(url: URL, statement: str, **values: Any) -> None:
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


@pytest.mark.parametrize(
    ("prefer", "status"),
    {
        "respond-async": 202,
        "wait=10, Respond-Async": 202,
        "respond-async; foo=1": 202,
        "respond-asynchronously": 200,
        "wait=10": 200,
    }.items(),
)
def test_what_a_caller_prefers(replicas: Replicas, prefer: str, status: int) -> None:
    response = ask(replicas.clients[0], "hello", headers={"Prefer": prefer})
    assert response.status_code == status, response.text


def test_run_is_found_and_followed_anywhere(replicas: Replicas, provider: httpx.Client) -> None:
    one, two = replicas.clients
    words, answer = slow(10, 0.05)
    path = put(one, words)
    followed = [parse_events(client.get(f"{path}/events").text) for client in (one, two)]
    assert followed[0] == followed[1]
    assert [event.id for event in followed[0]] == list(range(1, len(followed[0]) + 1))
    names = [event.name for event in followed[0]]
    assert (names[0], {*names[1:-1]}, names[-1]) == ("run", {"text"}, "done")
    assert told(followed[0]) == answer
    for client in (one, two):
        run = end(client, path)
        assert (run["status"], run["output"]) == ("succeeded", answer)
        assert run["usage"]["requests"] == 1
    again = put(two, "hello", run["conversation_id"])
    assert end(one, again)["output"] == "Heard 2: hello"


def test_failure_is_told(replicas: Replicas) -> None:
    one, two = replicas.clients
    run = end(two, put(one, "fail length"))
    assert (run["status"], run["output"]) == ("failed", None)
    assert "maximum context length" in run["error"]


def test_same_rules_hold(replicas: Replicas, provider: httpx.Client) -> None:
    """Of repeated requests, of conversations, and of what can't be had."""
    one, two = replicas.clients
    key = {"Idempotency-Key": str(uuid4()), **ASYNC}
    path = put(one, "hello")
    conversation = end(one, path)["conversation_id"]
    held = ask(one, "hold 3 it", conversation, headers=key)
    assert held.status_code == 202
    again = ask(two, "hold 3 it", conversation, headers=key)
    assert (again.status_code, again.headers["Location"]) == (202, held.headers["Location"])
    check_problem(ask(two, "something else", conversation, headers=key), 422, "Idempotency-Key")
    check_problem(ask(two, "meanwhile", conversation, headers=ASYNC), 409, "underway")
    check_problem(one.post("/v1/agents/nobody/runs", json={"input": "x"}, headers=ASYNC), 404)
    check_problem(one.post(RUNS, json={"input": "x"}, headers={**ASYNC, "X-Model": "a:b"}), 422)
    wait_for(partial(is_running, one, held.headers["Location"]), 30)
    release(provider)
    assert end(one, held.headers["Location"])["status"] == "succeeded"
    answered = ask(two, "hold 3 it", conversation, headers=key)
    assert (answered.status_code, answered.json()["status"]) == (200, "succeeded")


def test_files_go_with_it(replicas: Replicas, provider: httpx.Client) -> None:
    one, two = replicas.clients
    file = one.post("/v1/attachments?name=a.png", content=png()).json()["id"]
    run = end(two, put(one, "what is it?", attachments=[file]))
    assert run["output"] == "Heard 1: what is it?"
    asked = provider.get("/last").json()["messages"][-1]["content"]
    assert [part["type"] for part in asked] == ["text", "image_url"]
    said = two.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
    assert [found["id"] for found in said[0]["attachments"]] == [file]


def test_a_person_is_waited_for(replicas: Replicas, receiver: Receiver) -> None:
    one, two = replicas.clients
    first, second = uuid4().hex, uuid4().hex
    told_at = f"{receiver.address}/{first}"
    path = put(one, f'call pay {{"line": "{first}"}}', webhook=told_at)
    run = end(two, path)
    assert run["status"] == "waiting"
    [call] = run["calls"]
    [told_of] = heard_of(receiver, run["run_id"])
    assert (told_of["type"], told_of["data"]["calls"]) == ("run.waiting", run["calls"])
    assert parse_events(two.get(f"{path}/events").text)[-1].name == "waiting"
    word = {"decisions": [{"id": call["id"], "approve": True}]}
    decided = two.post(f"{path}/decisions", json=word).json()
    assert decided["status"] == "succeeded"
    # What it goes on with is told to the same.
    [told_of] = heard_of(receiver, decided["run_id"])
    assert (told_of["type"], told_of["data"]) == ("run.succeeded", decided)
    # Whoever asks something else instead goes on without.
    left = put(one, f'call pay {{"line": "{second}"}}', run["conversation_id"])
    assert end(two, left)["status"] == "waiting"
    assert end(one, put(two, "never mind", run["conversation_id"]))["output"].endswith("never mind")
    assert one.get(left).json()["status"] == "cancelled"
    assert (replicas.lines()[first], replicas.lines()[second]) == (1, 0)


def test_end_after_a_persons_word_is_told_however_it_comes(replicas: Replicas, receiver: Receiver) -> None:
    """It is stopped here; and a word that comes at once doesn't keep the wait from being told."""
    one, two = replicas.clients
    path = put(
        one, f'call pay {{"line": "{uuid4().hex}", "seconds": 100}}', webhook=f"{receiver.address}/word"
    )
    waiting = end(two, path)
    word = {"decisions": [{"id": waiting["calls"][0]["id"], "approve": True}]}
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(partial(two.post, f"{path}/decisions", json=word))
        wait_for(lambda: one.get(path).json()["continued_by"], 30)
        run_id = one.get(path).json()["continued_by"]
        assert one.post(f"/v1/runs/{run_id}/cancel").status_code == 202
        check_problem(answer.result(), 409, "cancelled")
    assert [message["type"] for message in heard_of(receiver, run_id)] == ["run.cancelled"]
    assert [message["type"] for message in heard_of(receiver, path[-36:])] == ["run.waiting"]
    left = partial(rows, replicas.database, "SELECT run_id FROM background_runs WHERE webhook LIKE '%/word'")
    wait_for(lambda: not left(), 30)


def test_what_is_decided_goes_on_in_the_background(replicas: Replicas, receiver: Receiver) -> None:
    one, two = replicas.clients
    line, key = uuid4().hex, uuid4().hex
    waiting = end(one, put(one, f'call pay {{"line": "{line}"}}', webhook=f"{receiver.address}/decided"))
    word = {
        "decisions": [{"id": waiting["calls"][0]["id"], "approve": True, "arguments": {"line": f"{line}+"}}]
    }
    decide = partial(one.post, f"/v1/runs/{waiting['run_id']}/decisions", json=word)
    accepted = decide(headers={**ASYNC, "Idempotency-Key": key})
    assert (accepted.status_code, accepted.headers["Preference-Applied"]) == (202, "respond-async")
    assert accepted.json()["status"] == "queued"
    path = accepted.headers["Location"]
    assert decide(headers={**ASYNC, "Idempotency-Key": key}).json()["run_id"] == path[-36:]
    check_problem(decide(headers=ASYNC), 409, "It was decided already")
    run = end(two, path)
    assert (run["status"], run["output"]) == ("succeeded", f"The tool said: noted {line}+")
    assert run["conversation_id"] == waiting["conversation_id"]
    assert one.get(f"/v1/runs/{waiting['run_id']}").json()["continued_by"] == run["run_id"]
    assert (replicas.lines()[line], replicas.lines()[f"{line}+"]) == (0, 1)
    names = [event.name for event in parse_events(two.get(f"{path}/events").text)]
    assert (names[0], names[-1], names.count("tool_result")) == ("run", "done", 1)
    said = one.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant"]
    for told_of in (waiting, run):
        [heard] = heard_of(receiver, told_of["run_id"])
        assert (heard["type"], heard["data"]["output"]) == (f"run.{told_of['status']}", told_of["output"])
    # It may wait again, and go on again; and what is denied is told to the model.
    again = end(one, put(one, f'loop pay {{"line": "{line}-"}}'))
    for approve in (True, False):
        word = {"decisions": [{"id": again["calls"][0]["id"], "approve": approve}]}
        answer = two.post(f"/v1/runs/{again['run_id']}/decisions", json=word, headers=ASYNC)
        again = end(one, answer.headers["Location"])
        assert again["status"] == "waiting"
    assert replicas.lines()[f"{line}-"] == 1
    left = partial(
        rows, replicas.database, "SELECT run_id FROM background_runs WHERE webhook LIKE '%/decided'"
    )
    wait_for(lambda: not left(), 30)


def test_what_is_decided_outlives_its_process(replicas: Replicas) -> None:
    """What was approved isn't done again, whether its tool says `@once` or not: the word was for one call."""
    one, two = replicas.clients
    name = uuid4().hex
    with replicas.third("decided") as third, httpx.Client(base_url=third.address, timeout=30) as client:
        paths: dict[str, str] = {}
        while len(paths) < 8 or is_idle(client):
            tool = ("refund", "pay")[len(paths) % 2]
            line = f"{name}-{tool}-{len(paths)}"
            waiting = end(one, put(one, f'call {tool} {{"line": "{line}", "seconds": {TOOL_SECONDS}}}'))
            word = {"decisions": [{"id": waiting["calls"][0]["id"], "approve": True}]}
            answer = one.post(f"/v1/runs/{waiting['run_id']}/decisions", json=word, headers=ASYNC)
            paths[line] = answer.headers["Location"]
        wait_for(lambda: sum(line.startswith(name) for line in replicas.lines()) == len(paths), 60)
        assert not is_idle(client)
        third.process.kill()
        ended = {line: end(two, path) for line, path in paths.items()}
    assert {run["status"] for run in ended.values()} == {"succeeded"}
    assert {replicas.lines()[line] for line in paths} == {1}
    assert any("Unknown result" in run["output"] for run in ended.values())
    for run in ended.values():
        said = one.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
        assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant"]
    again = rows(
        replicas.database,
        "SELECT id FROM runs WHERE attempts = 2 AND id = ANY(CAST(:ids AS uuid[]))",
        ids=[run["run_id"] for run in ended.values()],
    )
    assert again


def test_what_is_decided_can_be_stopped(replicas: Replicas) -> None:
    one, two = replicas.clients
    line = uuid4().hex
    waiting = end(one, put(one, f'call pay {{"line": "{line}", "seconds": 100}}'))
    word = {"decisions": [{"id": waiting["calls"][0]["id"], "approve": True}]}
    answer = one.post(f"/v1/runs/{waiting['run_id']}/decisions", json=word, headers=ASYNC)
    path = answer.headers["Location"]
    wait_for(lambda: replicas.lines()[line] == 1, 30)
    assert two.post(f"{path}/cancel").status_code == 202
    assert end(one, path)["status"] == "cancelled"
    wait_for(partial(is_idle, one, two), 30)
    # The conversation goes on, and the call isn't made once more.
    run = end(one, put(one, "and now?", waiting["conversation_id"]))
    assert (run["status"], replicas.lines()[line]) == ("succeeded", 1)


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["in its request", "in the background"])
@pytest.mark.parametrize(("verb", "types"), {"break": ["failed"], "loop": ["waiting", "waiting"]}.items())
def test_each_end_after_a_persons_word_is_told(
    replicas: Replicas, receiver: Receiver, verb: str, types: list[str], headers: dict[str, str]
) -> None:
    one, two = replicas.clients
    path = put(one, f'{verb} pay {{"line": "{uuid4().hex}"}}', webhook=f"{receiver.address}/words")
    run = end(one, path)
    for status in types:
        word = {"decisions": [{"id": run["calls"][0]["id"], "approve": True}]}
        two.post(f"/v1/runs/{run['run_id']}/decisions", json=word, headers=headers)
        run_id = one.get(f"/v1/runs/{run['run_id']}").json()["continued_by"]
        [told_of] = heard_of(receiver, run_id)
        assert told_of["type"] == f"run.{status}"
        run = end(one, f"/v1/runs/{run_id}")
        # What was approved is done, and kept however that ended.
        said = one.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
        assert "tool" in [message["role"] for message in said]


def test_run_is_stopped_from_anywhere(replicas: Replicas) -> None:
    one, two = replicas.clients
    for client in (one, two):
        path = put(one, 'call look {"line": "stop", "seconds": 100}')
        wait_for(partial(is_running, one, path), 30)
        assert client.post(f"{path}/cancel").status_code == 202
        assert end(one, path)["status"] == "cancelled"
        # What carried it has let go of it.
        wait_for(partial(is_idle, one, two), 30)
        conversation = one.get(path).json()["conversation_id"]
        said = one.get(f"/v1/conversations/{conversation}").json()["messages"]
        assert said[0]["content"].startswith("call look")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_process_that_dies_is_replaced(replicas: Replicas, how: signal.Signals) -> None:
    """Many runs, of which some are in a process that is killed: each ends once, and books once.

    Also where it only seems to be dead, and goes on when others have done its work.
    """
    one, two = replicas.clients
    name = uuid4().hex
    with (
        replicas.third(how.name) as third,
        httpx.Client(base_url=third.address, timeout=30) as client,
        ExitStack() as afterwards,
    ):
        afterwards.callback(third.process.send_signal, signal.SIGCONT)
        orders: dict[str, str] = {}
        while len(orders) < MANY or is_idle(client):
            line = f"{name}-{len(orders)}"
            orders[line] = put(one, f'call book {{"line": "{line}", "seconds": {TOOL_SECONDS}}}')
        wait_for(lambda: sum(line.startswith(name) for line in replicas.lines()) == len(orders), 60)
        assert not is_idle(client)
        third.process.send_signal(how)
        killed = time.monotonic()
        ended = {line: end(one, path) for line, path in orders.items()}
        # As silent as told, a third of that until it is looked for, and what it then takes, on a slow machine.
        assert time.monotonic() - killed < STALE_SECONDS * 4 / 3 + TOOL_SECONDS + 20 + MANY
        if how is signal.SIGSTOP:
            third.process.send_signal(signal.SIGCONT)
            wait_for(partial(is_idle, client), 60)
            assert ended == {line: one.get(path).json() for line, path in orders.items()}
    assert {run["status"] for run in ended.values()} == {"succeeded"}
    assert {
        line: count for line, count in replicas.lines().items() if line.startswith(name)
    } == dict.fromkeys(orders, 1)
    answers = Counter("Unknown result" in run["output"] for run in ended.values())
    assert answers[True] >= 1
    assert answers[False] >= 1
    begun_again = "SELECT id, attempts FROM runs WHERE attempts > 1 AND id = ANY(CAST(:ids AS uuid[]))"
    again = rows(replicas.database, begun_again, ids=[run["run_id"] for run in ended.values()])
    assert len(again) >= answers[True]
    for run_id, attempts in again:
        assert attempts == 2
        if how is signal.SIGSTOP:
            continue  # It may have told what it did on its own.
        events = parse_events(two.get(f"/v1/runs/{run_id}/events").text)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        names = [event.name for event in events]
        assert names[0] == "run"
        assert "restarted" not in names[3:]
        assert names[-1] == "done"
        assert (names.count("tool_result"), names.count("done")) == (1, 1)
    for run in ended.values():
        said = one.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
        assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant"]
        assert run["usage"]["requests"] == 2


def test_process_that_is_to_stop_hands_back(replicas: Replicas, provider: httpx.Client) -> None:
    one, _ = replicas.clients
    with replicas.third("stopped") as third, httpx.Client(base_url=third.address, timeout=30) as client:
        paths: list[str] = []
        while len(paths) < MANY or is_idle(client):
            paths.append(put(one, f"hold 2 {uuid4().hex}"))
        wait_for(lambda: provider.get("/stats").json()["open"] == len(paths), 60)
        third.process.terminate()
        third.process.wait(timeout=30)
    [(handed_back, most)] = rows(
        replicas.database, "SELECT sum(handed_back), max(handed_back) FROM background_runs"
    )
    assert handed_back >= 1
    assert most == 1
    for path in paths:
        # Some aren't underway again yet.
        wait_for(partial(released, provider, one, path), 60)
        assert end(one, path)["status"] == "succeeded"
    ids = [path.rpartition("/")[2] for path in paths]
    most_attempts = "SELECT max(attempts) FROM runs WHERE id = ANY(CAST(:ids AS uuid[]))"
    assert rows(replicas.database, most_attempts, ids=ids) == [(2,)]
    # What it took to begin them is gone soon.
    left = "SELECT run_id FROM background_runs WHERE run_id = ANY(CAST(:ids AS uuid[]))"
    wait_for(lambda: not rows(replicas.database, left, ids=ids), 30)


def test_run_that_is_stopped_while_nobody_is_at_it(
    new_database: Callable[[], URL], logs: Path, settings: dict[str, str], receiver: Receiver
) -> None:
    """Where it waits for room, between two attempts, and when its next attempt hasn't asked the model yet."""
    url = new_database()
    upgrade(url)
    names = [uuid4().hex for _ in range(2)]
    ledger = logs / "stopped lines"
    ledger.touch()
    few = settings | {
        "AGENT_BACKGROUND_RUNS": "2",
        "AGENT_STALE_SECONDS": str(2 * STALE_SECONDS),
        "LEDGER": str(ledger),
    }

    def lines() -> list[int]:
        return [ledger.read_text(encoding="utf-8").split().count(name) for name in names]

    def said(client: httpx.Client, path: str) -> list[str]:
        conversation = client.get(path).json()["conversation_id"]
        messages = client.get(f"/v1/conversations/{conversation}").json()["messages"]
        return [message["role"] for message in messages]

    def is_told(path: str) -> bool:
        return any(path[-36:].encode() in body for _, body in receiver.heard)

    with (
        service(logs / "dies", url, APP, **few) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        between, again = (
            put(client, f'call look {{"line": "{name}", "seconds": 100}}', webhook=receiver.address)
            for name in names
        )
        wait_for(lambda: lines() == [1, 1], 30)
        waiting = put(client, "say it later", webhook=receiver.address)
        assert client.get(waiting).json()["status"] == "queued"
        assert client.post(f"{waiting}/cancel").status_code == 202
        # At once, since its conversation may go on.
        assert said(client, waiting) == ["user"]
        wait_for(partial(is_told, waiting), 30)
        os.kill(server.process.pid, signal.SIGKILL)
    with (
        service(logs / "stops", url, APP, **few) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        assert client.post(f"{between}/cancel").status_code == 202
        wait_for(lambda: lines()[1] == 2, 60)
        assert client.post(f"{again}/cancel").status_code == 202
        for path in (between, again):
            wait_for(partial(is_told, path), 60)
            run = client.get(path).json()
            assert (run["status"], run["usage"].get("requests")) == ("cancelled", 1)
            assert said(client, path)[:2] == ["user", "assistant"]
        assert lines() == [1, 2]
        assert not rows(url, "SELECT run_id FROM background_runs")
        used = "SELECT runs, requests FROM api_key_usage WHERE owner = 'anonymous'"
        assert rows(url, used) == [(3, 2)]


def test_outage_of_the_database_ends_nothing(replicas: Replicas, postgres: Engine) -> None:
    one, two = replicas.clients
    name = uuid4().hex
    # Some tools end before the database is away, some meanwhile, and some when it is back.
    seconds = [round(OUTAGE_SECONDS * n / MANY, 1) for n in range(MANY)]
    paths = [put(one, f'call book {{"line": "{name}-{n}", "seconds": {s}}}') for n, s in enumerate(seconds)]
    wait_for(lambda: sum(line.startswith(name) for line in replicas.lines()) == len(paths), 60)
    with unreachable(postgres, replicas.database):
        time.sleep(OUTAGE_SECONDS)
    wait_for(lambda: two.get("/ready").status_code == 200, 30)
    for path in paths:
        assert end(two, path)["status"] == "succeeded"
    assert {count for line, count in replicas.lines().items() if line.startswith(name)} == {1}


class Small(NamedTuple):
    """A process with little room, and where the run is found that its predecessor was killed over."""

    client: httpx.Client
    killer: str


@pytest.fixture(scope="module")
def small(new_database: Callable[[], URL], logs: Path, model: dict[str, str]) -> Iterator[Small]:
    url = new_database()
    upgrade(url)
    options = {
        "AGENT_BACKGROUND": "1",
        "AGENT_BACKGROUND_ATTEMPTS": "1",
        "AGENT_BACKGROUND_RUNS": "2",
        "AGENT_CONCURRENT_RUNS": "1",
        "AGENT_STALE_SECONDS": str(STALE_SECONDS),
        "LEDGER": os.devnull,
        **model,
    }
    with (
        service(logs / "kills", url, APP, **options) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        path = put(client, 'call look {"line": "kills", "seconds": 100}')
        wait_for(partial(is_running, client, path), 30)
        os.kill(server.process.pid, signal.SIGKILL)
    with (
        service(logs / "heals", url, APP, **options) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        yield Small(client, path)


def test_run_that_kills_is_not_begun_for_ever(small: Small) -> None:
    run = end(small.client, small.killer)
    assert run["status"] == "failed"
    assert run["error"] == "The process that carried the run ended before it once, so it isn't begun again."
    [event] = parse_events(small.client.get(f"{small.killer}/events").text)[-1:]
    assert event.name == "error"


def test_schedule_is_kept_once(replicas: Replicas) -> None:
    """Both know of it, and none of its times is left out."""
    kept = "SELECT status, idempotency_key, output #>> '{}' FROM runs WHERE owner = 'schedule:daily'"
    ended = f"{kept} AND status = 'succeeded'"
    wait_for(lambda: len(rows(replicas.database, ended)) >= 3, 60)
    assert {said for *_, said in rows(replicas.database, ended)} == {"good morning"}
    times = sorted(int(key.rpartition(" ")[2]) for _, key, _ in rows(replicas.database, kept))
    assert times == list(range(times[0], times[-1] + 1, EVERY_SECONDS))


SCHEDULE = {"name": "nightly", "cron": "0 3 * * *", "agent": "assistant", "input": "Report."}
WRONG: dict[str, tuple[list[dict[str, str]], str]] = {
    "no cron expression": ([SCHEDULE | {"cron": "0 3 * *"}], "'0 3 \\* \\*', which is none"),
    "an hour that there isn't": ([SCHEDULE | {"cron": "0 25 * * *"}], "which is none"),
    "an agent that isn't there": (
        [SCHEDULE | {"agent": "nobody"}],
        "'nobody', which isn't there. There are: assistant",
    ),
    "a name twice": ([SCHEDULE, SCHEDULE], "declared twice"),
    "nothing to ask": ([SCHEDULE | {"input": " "}], "asks nothing"),
}


@pytest.mark.parametrize("what", WRONG)
def test_schedule_that_cannot_be_kept_is_refused_at_start(what: str) -> None:
    declared, words = WRONG[what]
    agents = {"assistant": RegisteredAgent("assistant", "", "", background_app.agent)}
    with pytest.raises(SystemExit, match=f"The service can't start: The schedule 'nightly' .*{words}"):
        create_app(
            agents=agents, default_model="openai:x", schedules=[Schedule(**s) for s in declared], env={}
        )


@pytest.mark.parametrize("answer", ["", "/500", "/302"])
def test_end_is_told_signed(replicas: Replicas, receiver: Receiver, answer: str) -> None:
    """Again after an error, and after a redirect, which isn't followed."""
    receiver.heard.clear()
    words = f"say {uuid4().hex}"
    address = f"{receiver.address}/{uuid4().hex}{answer}"
    run = end(replicas.clients[0], put(replicas.clients[0], words, webhook=address))
    times = 2 if answer else 1
    wait_for(lambda: len(receiver.heard) >= times, 60)
    assert len(receiver.heard) == times
    for headers, body in receiver.heard:
        document = json.loads(body)
        assert document["type"] == "run.succeeded"
        assert document["data"] | {"feedback": None} == run
        assert headers["webhook-id"] == f"msg_{run['run_id']}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = [hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest() for secret in SECRETS]
        assert headers["webhook-signature"] == " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in expected
        )


def test_end_that_cannot_be_told_is_in_the_log_and_the_metrics(
    new_database: Callable[[], URL], logs: Path, settings: dict[str, str], receiver: Receiver
) -> None:
    """Without the address and whose run it is. Here also: a run that no attempt was begun at is counted."""
    url = new_database()
    upgrade(url)
    log = logs / "untold"
    secret = uuid4().hex
    few = settings | {
        "AGENT_WEBHOOK_SECONDS": "1",
        "AGENT_BACKGROUND_RUNS": "1",
        "API_KEYS_REQUIRED": "True",
    }
    key = create_key(url)
    with (
        collecting() as (collector, endpoint),
        service(log, url, APP, **few, **endpoint) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        client.headers["Authorization"] = f"Bearer {key}"
        path = put(client, "hello", webhook=f"{receiver.address}/{secret}/500")
        words = f"The end of run {path[-36:]} could not be told: The address answers with 500"
        wait_for(lambda: words in log.read_text(encoding="utf-8"), 30)
        underway = put(client, f'call look {{"line": "{uuid4().hex}", "seconds": 100}}')
        wait_for(partial(is_running, client, underway), 30)
        path = put(client, "hello")
        change(url, "UPDATE runs SET agent_id = 'gone' WHERE id = :id", id=path[-36:])
        client.post(f"{underway}/cancel")
        assert end(client, path)["error"] == "There is no agent 'gone' any more."
        # Counted after that is written, as is known once its job is done.
        wait_for(lambda: not rows(url, "SELECT run_id FROM background_runs"), 30)
    counted = collector.metrics()["agent.runs"]
    assert "gone" in counted
    assert "failed" in counted
    said = log.read_text(encoding="utf-8")
    assert secret not in said
    assert "ended with status" not in said


def test_what_waits_is_limited_and_begins_only_if_it_still_may(
    new_database: Callable[[], URL], logs: Path, settings: dict[str, str]
) -> None:
    """How many of a caller's wait; a key that is revoked meanwhile, a person who is blocked, a day that is used up."""
    url = new_database()
    upgrade(url)
    few = settings | {
        "AGENT_BACKGROUND_RUNS": "1",
        "AGENT_BACKGROUND_QUEUED": "2",
        "API_KEYS_REQUIRED": "True",
    }
    free, revoked = create_key(url, "free"), create_key(url, "revoked")
    limited, acting = (
        create_key(url, "limited", "--tokens-per-day", "10"),
        create_key(url, "acting", "--acts-for-users"),
    )
    with (
        service(logs / "limited", url, APP, **few) as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        callers = {key: {"Authorization": f"Bearer {key}"} for key in (free, revoked, limited, acting)}
        callers[acting]["X-User-ID"] = "mallory"

        def put_for(key: str, words: str = "hello") -> str:
            client.headers = callers[key]
            return put(client, words)

        underway = put_for(free, f'call look {{"line": "{uuid4().hex}", "seconds": 100}}')
        wait_for(partial(is_running, client, underway), 30)
        waiting = [put_for(free) for _ in range(2)]
        refused = ask(client, "one too many", headers=ASYNC)
        check_problem(refused, 429, "As many of your runs wait as may (2)")
        assert int(refused.headers["Retry-After"]) >= 1
        paths = {key: put_for(key) for key in (revoked, limited, acting)}
        change(url, "UPDATE api_keys SET revoked_at = now() WHERE id = :id", id=revoked.split("_")[1])
        change(
            url,
            "INSERT INTO api_key_usage (owner, day, input_tokens) VALUES (:id, (now() AT TIME ZONE 'UTC')::date, 10)",
            id=limited.split("_")[1],
        )
        users_command(url, "block", "mallory")
        client.headers = callers[free]
        assert client.post(f"{underway}/cancel").status_code == 202
        assert [end(client, path)["status"] for path in waiting] == ["succeeded"] * 2
        ended = "SELECT status, error FROM runs WHERE id = :id AND status <> 'running'"
        for key, error in {
            revoked: "The key isn't valid any more.",
            limited: "The key's limit is reached: 10 tokens a day (UTC).",
            acting: "The person may not use the service any more.",
        }.items():
            found = partial(rows, url, ended, id=paths[key][-36:])
            wait_for(found, 30)
            assert found() == [("failed", error)]


PRIVATE = [
    "http://127.0.0.1/",
    "https://127.0.0.1:8443/x",
    "https://[::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://[::ffff:10.0.0.1]/",
    "https://[fe80::1]/",
    "https://[fd00::1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[2002:a00:1::]/",
    "https://0.0.0.0/",
    "https://localhost/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://224.0.0.1/",
]
UNUSABLE = [
    "ftp://example.com/",
    "example.com",
    "https://user:secret@example.com/",
    "https:///path",
    "https://example.com:99999/",
    "https://exa mple.com/",
    "https://example.com/\r\nX: y",
    "https://nowhere.invalid/",
]


@pytest.mark.parametrize("address", [*PRIVATE, *UNUSABLE])
def test_address_that_is_not_told(replicas: Replicas, address: str) -> None:
    words = "it is private" if address in PRIVATE else "can't be used"
    asked = {"input": "hello", "webhook": address}
    check_problem(replicas.clients[0].post(RUNS, json=asked, headers=ASYNC), 422, words)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.anyio
async def test_name_that_changes_its_mind_is_not_told(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leads elsewhere when it is checked than when it is told."""
    settings = BackgroundSettings.from_env(
        {"AGENT_BACKGROUND": "1", "AGENT_WEBHOOK_SECRETS": f"whsec_{SECRETS[0]}"}
    )
    webhooks = Webhooks(settings, plain=True)
    port = receiver.address.rpartition(":")[2]
    found = ["93.184.216.34", "127.0.0.1"]

    async def resolve(self: asyncio.AbstractEventLoop, host: str, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found.pop(0), int(port)))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    before = len(receiver.heard)
    await webhooks.check(f"http://example.com:{port}/")
    with pytest.raises(Refused, match="it is private"):
        await webhooks.send(f"http://example.com:{port}/", "msg_1", {})
    assert not found
    assert len(receiver.heard) == before
    with pytest.raises(RunError, match="must begin with https://"):
        await Webhooks(settings, plain=False).check("http://example.com/")


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_c2hvcnQ=", f"whsec_{SECRETS[0]},whsec_!"])
def test_secret_that_is_none_is_refused_unsaid(secret: str) -> None:
    with pytest.raises(SettingsError, match="AGENT_WEBHOOK_SECRETS: write whsec_ and at least 24") as refused:
        BackgroundSettings.from_env({"AGENT_BACKGROUND": "True", "AGENT_WEBHOOK_SECRETS": secret})
    assert SECRETS[0] not in str(refused.value)


def test_webhook_needs_a_run_in_the_background(replicas: Replicas, scripted: httpx.Client) -> None:
    asked = {"input": "hello", "webhook": "https://example.com/"}
    check_problem(replicas.clients[0].post(RUNS, json=asked), 422, "send Prefer: respond-async.")
    check_problem(scripted.post(RUNS, json=asked, headers=ASYNC), 422, "AGENT_BACKGROUND")


def test_requests_keep_their_room(small: Small, provider: httpx.Client) -> None:
    """More runs than are carried at once wait. Here also: without a secret there are no webhooks."""
    client = small.client
    end(client, small.killer)
    paths = [put(client, f"hold 2 {uuid4().hex}") for _ in range(3)]
    wait_for(
        lambda: Counter(client.get(path).json()["status"] for path in paths) == {"running": 2, "queued": 1}
    )
    assert ask(client, "hello").status_code == 200
    check_problem(
        client.post(RUNS, json={"input": "x", "webhook": "https://example.com/"}, headers=ASYNC),
        422,
        "AGENT_WEBHOOK_SECRETS isn't set",
    )
    # One that waits can be stopped too.
    [waiting] = [path for path in paths if client.get(path).json()["status"] == "queued"]
    assert client.post(f"{waiting}/cancel").status_code == 202
    assert client.get(waiting).json()["status"] == "cancelled"
    release(provider)
    ended = Counter(end(client, path)["status"] for path in paths)
    assert ended == {"succeeded": 2, "cancelled": 1}


def test_what_is_off_costs_nothing(scripted: httpx.Client) -> None:
    assert ask(scripted, "hello", headers=ASYNC).status_code == 200
    streamed = ask(scripted, "hello", headers={**ASYNC, **SSE})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    script = (
        "import sys, chassis.tests.app; print([n for n in sys.modules if n.startswith(('procrastinate', 'croniter', "
        "'chassis.background.carrier', 'chassis.background.webhooks'))])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=clean_env(), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
