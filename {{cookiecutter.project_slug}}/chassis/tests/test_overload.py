"""More at once than one process carries: what is refused, what is not lost, and what several processes share."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from chassis.runs import load
from chassis.runs.clock import TICK_SECONDS, Clock
from chassis.testing.client import RUNS, SSE, ask, check_problem, events, wait_for
from chassis.tests.service import create_limited_key, serving


@pytest.mark.anyio
async def test_time_stands_still_while_the_process_is_behind() -> None:
    clock, ticks = Clock(), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    keeper = asyncio.create_task(clock.keep(tick))
    began = clock.now()
    await asyncio.sleep(4 * TICK_SECONDS)
    undisturbed = clock.now() - began
    before = clock.now()
    time.sleep(1)  # noqa: ASYNC251 -- what a process does that is behind
    await asyncio.sleep(2 * TICK_SECONDS)
    assert clock.now() - before < 0.7
    assert undisturbed > 2 * TICK_SECONDS
    assert ticks > 3
    keeper.cancel()


def test_what_is_too_much_is_refused_before_anything_is_spent(
    database: URL, logs: Path, model: dict[str, str]
) -> None:
    with (
        serving(logs / "small", database, AGENT_CONCURRENT_RUNS="2", **model) as client,
        ExitStack() as stack,
    ):
        open_streams = [
            stack.enter_context(client.stream("POST", RUNS, json={"input": "slow 300 0.1 x"}, headers=SSE))
            for _ in range(2)
        ]
        streams = [response.iter_lines() for response in open_streams]
        told: list[str] = []
        for lines in streams:
            while not any(line == "event: text" for line in told[-1:]):
                told.append(next(lines))
        chat: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}
        before = len(client.get("/v1/conversations?limit=100").json()["conversations"])
        asked: dict[str, dict[str, Any]] = {RUNS: {"input": "Hello"}}
        if find_spec("chassis.protocols.openai"):
            asked["/v1/chat/completions"] = chat
        if find_spec("chassis.protocols.responses"):
            asked["/v1/responses"] = {"model": "assistant", "input": "Hello"}
        for path, body in asked.items():
            refused = client.post(path, json=body)
            assert check_problem(refused, 503)["detail"].startswith("As many runs are underway")
            assert refused.headers["Retry-After"] == "2"
            assert "X-Should-Retry" not in refused.headers
        assert len(client.get("/v1/conversations?limit=100").json()["conversations"]) == before
        # Everything else goes on, and so does the next run once there is room.
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()["runs"]) == (200, {"underway": 2, "at_most": 2})
        [run] = [line for line in told if line.startswith("data: ")][:1]
        client.post(f"/v1/runs/{json.loads(run[6:])['run_id']}/cancel")
        wait_for(lambda: client.post(RUNS, json={"input": "Hello"}).is_success)


def test_load_is_told_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    log = load.LoadLog(at_most=40)
    with caplog.at_level("INFO", load.logger.name):
        log.note(1)
        log.note(2)
        assert not caplog.records
        monkeypatch.setattr(load, "SECONDS", 0)
        log.note(6)
        log.note(10)
    told = [vars(record)["fields"] for record in caplog.records]
    assert told == [
        {"runs_underway": 3.0, "runs_percent": 7.5},
        {"runs_underway": 10.0, "runs_percent": 25.0},
    ]


def test_workers_of_one_service_behave_as_replicas_do(
    database: URL, logs: Path, model: dict[str, str]
) -> None:
    """What one has begun another goes on telling, and what they count they count together."""
    key = create_limited_key(database, 12)
    options = {"WEB_CONCURRENCY": "4", "API_KEYS_REQUIRED": "True", **model}
    with serving(logs / "workers", database, **options) as client:
        # The socket is there before anybody listens to it.
        started = "Application startup complete"
        log = logs / "workers"
        wait_for(lambda: log.read_text(encoding="utf-8").count(started) == 4, seconds=60)
        header = {"Authorization": f"Bearer {key}"}

        def stream(number: int) -> tuple[str, str]:
            # A connection of its own for each, so that they get to different workers.
            with httpx.Client(base_url=client.base_url, headers=header, timeout=60) as caller:
                told = events(ask(caller, f"slow 20 0.05 w{number}", headers=SSE))
                run_id = str(told[0][1]["run_id"])
            with httpx.Client(base_url=client.base_url, headers=header, timeout=60) as other:
                again = other.get(f"/v1/runs/{run_id}/events", headers=SSE)
                assert again.text.count("event: done") == 1
                return run_id, other.get(f"/v1/runs/{run_id}").json()["status"]

        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(stream, range(8)))
        assert {status for _, status in ended} == {"succeeded"}
        answers = [
            httpx.post(
                client.base_url.join(RUNS), json={"input": "Hello"}, headers=header, timeout=60
            ).status_code
            for _ in range(8)
        ]
        assert answers == [200] * 4 + [429] * 4
    assert "Traceback" not in log.read_text(encoding="utf-8")
