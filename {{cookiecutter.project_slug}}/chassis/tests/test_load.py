"""Many callers at once, and what becomes of their runs when something breaks."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import URL, Engine, text

from chassis.database.engine import CONNECTIONS, sync_engine
from chassis.testing.client import RUNS, SSE, Event, ask, check_problem, counts, parse_events, release
from chassis.testing.service import Server, unreachable, upgrade
from chassis.tests.service import service

pytestmark = pytest.mark.anyio

Task = asyncio.Task[list[Event]]


@pytest.fixture
async def clients(servers: list[Server]) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client for each of the two, which opens as many connections as it is asked to."""
    one, two = (connect(server.address) for server in servers)
    async with one, two:
        yield [one, two]


def connect(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=60, limits=httpx.Limits(max_connections=None))


async def post(
    client: httpx.AsyncClient, words: str, conversation_id: str | None = None, **headers: str
) -> httpx.Response:
    body = {"input": words, "conversation_id": conversation_id}
    return await client.post(RUNS, json=body, headers=headers)


async def stream(
    client: httpx.AsyncClient,
    words: str,
    conversation_id: str | None = None,
    *,
    heard: list[Event] | None = None,
    enough: Callable[[list[Event]], object] = lambda events: False,
) -> list[Event]:
    """Run and return the events, or those that are enough; `heard` has them at any time."""
    heard = [] if heard is None else heard
    body = {"input": words, "conversation_id": conversation_id}
    async with client.stream("POST", RUNS, json=body, headers=SSE) as response:
        assert response.status_code == 200, await response.aread()
        received = ""
        async for chunk in response.aiter_text():
            received += chunk
            heard[:] = parse_events(received)
            if enough(heard):
                break
    return heard


async def resume(client: httpx.AsyncClient, run_id: str, last: int) -> list[Event]:
    response = await client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(last)})
    assert response.status_code == 200, response.text
    return parse_events(response.text)


async def said(client: httpx.AsyncClient, conversation_id: str) -> list[tuple[str, str]]:
    response = await client.get(f"/v1/conversations/{conversation_id}")
    assert response.status_code == 200, response.text
    return [(message["role"], message["content"]) for message in response.json()["messages"]]


async def until(check: Callable[[], object], seconds: float = 30) -> None:
    for _ in range(round(seconds * 20)):
        if check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"It did not come to be in {seconds} s.")


def begin(client: httpx.AsyncClient, orders: list[tuple[str, str]]) -> tuple[list[Task], list[list[Event]]]:
    """Start a stream for each order. Return the tasks, and the events that each has heard at any time."""
    heard: list[list[Event]] = [[] for _ in orders]
    streams = zip(orders, heard, strict=True)
    return [asyncio.create_task(stream(client, words, heard=events)) for (words, _), events in streams], heard


def all_heard(tasks: list[Task], heard: list[list[Event]]) -> bool:
    """Whether each has heard something; an error of a task is raised."""
    return all(task.result() if task.done() else events for task, events in zip(tasks, heard, strict=True))


def told(events: list[Event]) -> str:
    """What the deltas add up to."""
    return "".join(event.data["delta"] for event in events if event.name == "text")


def order(verb: str, count: int) -> tuple[str, str]:
    """Words that nobody else says, for an answer of this many tokens, and that answer."""
    word = uuid4().hex
    return f"{verb} {word}", "".join(f"{word}/{n} " for n in range(1, count + 1))


def slow(count: int, pause: float) -> tuple[str, str]:
    return order(f"slow {count} {pause}", count)


def busy_connections(postgres: Engine, url: URL) -> int:
    """How many of the service's connections are in use at this moment."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND state <> 'idle'"
    with postgres.connect() as connection:
        return int(connection.execute(text(query), {"name": url.database}).scalar_one())


def open_sockets(server: Server) -> int:
    folder = Path(f"/proc/{server.process.pid}/fd")
    return sum(str(file.readlink()).startswith("socket:") for file in folder.iterdir() if file.is_symlink())


async def test_two_hundred_streams_at_once(
    clients: list[httpx.AsyncClient], provider: httpx.Client, postgres: Engine, database: URL
) -> None:
    client = clients[0]
    orders = [order("hold 6", 6) for _ in range(200)]
    tasks, heard = begin(client, orders)
    await until(lambda: all_heard(tasks, heard) and {events[-1].name for events in heard} == {"text"}, 100)
    # All are open, and whoever else comes is served: no stream holds a connection to the database.
    for _ in range(20):
        assert (await client.get("/v1/conversations", params={"limit": 1})).status_code == 200
    in_use = [busy_connections(postgres, database) for _ in range(10)]
    assert sorted(in_use)[len(in_use) // 2] < CONNECTIONS
    assert not any(task.done() for task in tasks)
    release(provider)

    finished = await asyncio.gather(*tasks)
    conversations = []
    for (_, answer), events in zip(orders, finished, strict=True):
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert events[-1].name == "done"
        assert told(events) == events[-1].data["output"] == answer
        conversations.append(events[-1].data["conversation_id"])
    assert len(set(conversations)) == len(orders)
    # On connections of its own: the server may just be closing the ones that were idle for some seconds.
    async with connect(str(client.base_url)) as reader:
        stored = await asyncio.gather(*(said(reader, conversation) for conversation in conversations))
    assert stored == [[("user", words), ("assistant", answer)] for words, answer in orders]
    engine = sync_engine(database)
    with engine.connect() as connection:
        query = text("SELECT conversation_id, status::text FROM runs WHERE conversation_id = ANY(:ids)")
        rows = connection.execute(query, {"ids": conversations}).all()
    engine.dispose()
    assert Counter(rows) == {(conversation, "succeeded"): 1 for conversation in conversations}


async def test_killed_server_leaves_no_run_behind(
    new_database: Callable[[], URL], logs: Path, model: dict[str, str]
) -> None:
    url = new_database()
    upgrade(url)
    settings = model | {"AGENT_STALE_SECONDS": "3"}
    orders = [slow(3, 0.05) if number % 2 else slow(200, 0.1) for number in range(50)]
    with service(logs / "killed", url, **settings) as server:
        async with connect(server.address) as client:
            tasks, heard = begin(client, orders)
            await until(
                lambda: all_heard(tasks, heard) and any(events[-1].name == "done" for events in heard)
            )
            server.process.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
    with service(logs / "restarted", url, **settings) as server:
        async with connect(server.address) as client:

            async def view(run_id: str) -> dict[str, Any]:
                while True:
                    response = await client.get(f"/v1/runs/{run_id}")
                    assert response.status_code == 200, response.text
                    found: dict[str, Any] = response.json()
                    if found["status"] != "running":
                        return found
                    await asyncio.sleep(0.1)

            async with asyncio.timeout(60):
                views = await asyncio.gather(*(view(events[0].data["run_id"]) for events in heard))
            assert {found["status"] for found in views} == {"succeeded", "interrupted"}
            for (words, answer), events, found in zip(orders, heard, views, strict=True):
                # What the caller saw succeed did, and what succeeded is there, whole.
                ended = found["status"] == "succeeded"
                assert ended or events[-1].name != "done"
                # The answer is stored a moment before the run is said to have succeeded.
                exchange = [("user", words), ("assistant", answer)]
                kept = await said(client, found["conversation_id"])
                assert kept == exchange or (kept == [] and not ended)
                # Whoever comes back for the rest is told how it ended.
                assert (await resume(client, found["run_id"], 10**6))[-1].name == (
                    "done" if ended else "error"
                )
            again = await post(client, "again", views[0]["conversation_id"])
            assert again.json()["output"] == "Heard 1: again"


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's sockets in /proc")
async def test_callers_who_hang_up_leave_nothing_behind(
    servers: list[Server], provider: httpx.Client, postgres: Engine, database: URL
) -> None:
    server = servers[1]
    before = counts(provider)
    async with connect(server.address) as client:
        assert (await post(client, "hello")).status_code == 200
        sockets = open_sockets(server)
        streams = [asyncio.create_task(stream(client, "sleep 60")) for _ in range(25)]
        whole = [asyncio.create_task(post(client, "sleep 60")) for _ in range(25)]
        await until(lambda: counts(provider)["open"] == before["open"] + 50)
        for task in (*streams, *whole):
            task.cancel()
        await asyncio.gather(*streams, *whole, return_exceptions=True)

    expected = {"finished": before["finished"] + 1, "cancelled": before["cancelled"] + 50}
    await until(lambda: counts(provider) == before | expected)
    query = text("SELECT count(*) FROM runs WHERE status = 'running'")
    engine = sync_engine(database)
    with engine.connect() as connection:
        await until(lambda: connection.execute(query).scalar_one() == 0)
    engine.dispose()
    await until(lambda: busy_connections(postgres, database) == 0)
    # The pool keeps some connections to the database open, the client of the model none that was cut.
    await until(lambda: open_sockets(server) <= sockets + CONNECTIONS)


async def test_one_writer_of_a_conversation_wins(clients: list[httpx.AsyncClient]) -> None:
    first = (await post(clients[0], "hello")).json()
    conversation = first["conversation_id"]
    expected = [("user", "hello"), ("assistant", first["output"])]
    for number in range(2):
        # Long enough for all to come while the first still writes.
        words = [f"sleep 2.{number}{writer}" for writer in range(10, 60)]
        answers = await asyncio.gather(
            *(post(clients[n % 2], each, conversation) for n, each in enumerate(words))
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
        [(winner, won)] = [
            (each, answer) for each, answer in zip(words, answers, strict=True) if answer.status_code == 200
        ]
        expected += [("user", winner), ("assistant", won.json()["output"])]
        assert await said(clients[0], conversation) == expected
    assert (await post(clients[1], "again", conversation)).json()["output"] == "Heard 4: again"


@pytest.mark.parametrize("cut", [1, 7])
@pytest.mark.parametrize("away", [0, 2.5], ids=["goes-on", "has-ended"])
@pytest.mark.parametrize("where", [0, 1], ids=["same-process", "other-process"])
async def test_stream_that_was_cut_goes_on(
    clients: list[httpx.AsyncClient], cut: int, away: float, where: int
) -> None:
    words, answer = slow(20, 0.1)
    events = await stream(clients[0], words, enough=lambda heard: len(heard) >= cut)
    [run_id] = [event.data["run_id"] for event in events if event.name == "run"]
    await asyncio.sleep(away)
    rest = await resume(clients[where], run_id, events[-1].id)
    whole = events + rest
    assert [event.id for event in whole] == list(range(1, len(whole) + 1))
    assert [event.name for event in whole] == ["run", *["text"] * 20, "done"], whole[-1]
    assert told(whole) == whole[-1].data["output"] == answer
    # Whoever asks once more gets the same.
    assert await resume(clients[1 - where], run_id, 0) == whole


async def test_stream_can_be_cut_many_times(clients: list[httpx.AsyncClient]) -> None:
    words, answer = slow(20, 0.1)
    whole = await stream(clients[0], words, enough=lambda heard: heard)
    path = f"/v1/runs/{whole[0].data['run_id']}/events"
    for turn in range(100):
        async with clients[turn % 2].stream(
            "GET", path, headers={"Last-Event-ID": str(whole[-1].id)}
        ) as response:
            received = ""
            async for chunk in response.aiter_text():
                received += chunk
                if found := parse_events(received):
                    whole += found
                    break
        if whole[-1].name == "done":
            break
    assert [event.id for event in whole] == list(range(1, len(whole) + 1))
    assert told(whole) == whole[-1].data["output"] == answer


async def test_events_of_a_run_that_is_not_there(clients: list[httpx.AsyncClient]) -> None:
    check_problem(await clients[0].get(f"/v1/runs/{uuid4()}/events"), 404)
    check_problem(await clients[0].get("/v1/runs/1/events"), 422)


async def test_request_that_is_sent_again_runs_once(
    clients: list[httpx.AsyncClient], provider: httpx.Client
) -> None:
    before = counts(provider)["finished"]
    key = {"Idempotency-Key": str(uuid4())}
    first = await post(clients[0], "hello", **key)
    again = await post(clients[1], "hello", **key)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    streamed = parse_events((await post(clients[0], "hello", **key, **SSE)).text)
    assert streamed[-1].name == "done"
    assert streamed[-1].data == first.json()
    check_problem(await post(clients[0], "something else", **key), 422, "Idempotency-Key")
    assert counts(provider)["finished"] == before + 1


async def test_requests_that_are_sent_at_once_run_once(
    clients: list[httpx.AsyncClient], provider: httpx.Client
) -> None:
    before = counts(provider)["finished"]
    words, answer = slow(5, 0.1)
    key = {"Idempotency-Key": str(uuid4())}
    streamed = await asyncio.gather(*(post(clients[n % 2], words, **key, **SSE) for n in range(20)))
    endings = [parse_events(response.text)[-1] for response in streamed]
    assert {event.name for event in endings} == {"done"}
    assert len({event.data["run_id"] for event in endings}) == 1
    assert endings[0].data["output"] == answer
    assert counts(provider)["finished"] == before + 1

    # Without a stream the answer comes once; those who ask meanwhile are told to ask again.
    key = {"Idempotency-Key": str(uuid4())}
    answers = await asyncio.gather(*(post(clients[n % 2], words, **key) for n in range(20)))
    assert Counter(response.status_code for response in answers) == {200: 1, 409: 19}
    check_problem(next(response for response in answers if response.status_code == 409), 409, "underway")
    assert (await post(clients[0], words, **key)).json()["output"] == answer
    assert counts(provider)["finished"] == before + 2


async def test_request_that_failed_may_be_sent_again(clients: list[httpx.AsyncClient]) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    check_problem(await post(clients[0], "fail down", **key), 503)
    check_problem(await post(clients[0], "fail down", **key), 503)
    assert (await post(clients[0], "hello", **key)).status_code == 200


def test_outage_of_the_database_heals(own: httpx.Client, own_database: URL, postgres: Engine) -> None:
    conversation = ask(own, "hello").json()["conversation_id"]
    words, answer = slow(30, 0.1)
    # This one needs the database before the outage and after it.
    with own.stream("POST", RUNS, json={"input": words}, headers=SSE) as response:
        with unreachable(postgres, own_database):
            for _ in range(5):
                check_problem(ask(own, "hello", conversation), 503, "The database can't be reached.")
                check_problem(own.get("/v1/conversations"), 503, "The database can't be reached.")
                check_problem(own.get("/ready"), 503)
                assert own.get("/health").status_code == 200
                time.sleep(0.3)
        events = parse_events("".join(response.iter_text()))
    assert (events[-1].name, told(events)) == ("done", answer)
    assert own.get("/ready").status_code == 200
    assert ask(own, "again", conversation).json()["output"] == "Heard 2: again"
    path = f"/v1/runs/{events[0].data['run_id']}"
    assert own.get(path).json()["output"] == answer
    assert parse_events(own.get(f"{path}/events").text) == events
