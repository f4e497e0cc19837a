"""The service over HTTP, as a process of its own on a real PostgreSQL."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from pydantic_ai.exceptions import ModelTimeoutError
from sqlalchemy import URL, Engine, text

from chassis import __version__
from chassis.database.engine import async_engine, sync_engine
from chassis.health.readiness import Readiness
from chassis.runs.errors import explain
from chassis.settings import WORKSPACE
from chassis.testing.client import RUNS, SSE, ask, check_problem, counts, events, run_rows, wait_for
from chassis.testing.provider import SECRET
from chassis.testing.service import Server, alembic_config_for, clean_env, unreachable
from chassis.tests.service import serving


def test_health_and_readiness(dev: httpx.Client) -> None:
    assert dev.get("/health").json() == {"status": "ok", "chassis": __version__}
    assert dev.get("/ready").json() == {"status": "ok", "runs": {"underway": 0, "at_most": 300}}


def test_agents_are_listed(dev: httpx.Client) -> None:
    agents = {agent["id"]: agent for agent in dev.get("/v1/agents").json()["agents"]}
    assert agents["assistant"].keys() == {"id", "name", "description"}


def test_documentation_is_there_in_development(dev: httpx.Client) -> None:
    assert dev.get("/docs").status_code == 200
    assert RUNS.replace("assistant", "{agent_id}") in dev.get("/openapi.json").json()["paths"]


def test_run_answers_json_and_is_recorded(dev: httpx.Client, database: URL) -> None:
    answer = ask(dev, "hello there").json()
    assert "demonstration" in answer["output"]
    assert "_API_KEY" in answer["output"]
    assert answer["usage"]["requests"] == 1
    [row] = run_rows(database, answer["conversation_id"])
    assert str(row.id) == answer["run_id"]
    assert (row.status, row.agent_id, row.error) == ("succeeded", "assistant", None)
    assert row.usage["requests"] == 1
    assert row.finished_at >= row.started_at


def test_run_answers_events_with_the_tool_on_the_way(dev: httpx.Client) -> None:
    found = events(ask(dev, "What time is it?", headers=SSE))
    names = [name for name, _ in found]
    assert list(dict.fromkeys(names)) == ["run", "tool_call", "tool_result", "text", "done"]
    call, result, done = (dict(found)[name] for name in ("tool_call", "tool_result", "done"))
    assert (call["name"], call["arguments"]) == ("current_time", {})
    assert "UTC" in result["content"]
    assert call["id"] == result["id"]
    assert "".join(data["delta"] for name, data in found if name == "text") == done["output"]
    assert done["usage"]["requests"] == 2
    assert done["usage"]["tool_calls"] == 1
    assert dict(found)["run"].items() <= done.items()


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_conversation_is_picked_up_again(dev: httpx.Client, headers: dict[str, str]) -> None:
    def answer(response: httpx.Response) -> Any:
        return dict(events(response))["done"] if headers else response.json()

    first = answer(ask(dev, "my name is Zoë", headers=headers))
    second = answer(ask(dev, "and now?", first["conversation_id"], headers=headers))
    assert second["conversation_id"] == first["conversation_id"]
    assert "Before that you said: my name is Zoë" in second["output"]
    # Each run has its own usage, not the sum of the conversation.
    assert second["usage"]["requests"] == 1


def test_conversations_are_listed_read_and_deleted(dev: httpx.Client, database: URL) -> None:
    conversation = ask(dev, "  what time\nis it? " + "x" * 100).json()["conversation_id"]
    newest = dev.get("/v1/conversations", params={"limit": 1}).json()["conversations"][0]
    assert newest["id"] == conversation
    assert newest["title"].startswith("what time is it? xxx")
    path = f"/v1/conversations/{conversation}"
    messages = dev.get(path).json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_name"] == messages[2]["tool_name"] == "current_time"
    assert dev.delete(path).status_code == 204
    check_problem(dev.get(path), 404, conversation)
    check_problem(dev.delete(path), 404, conversation)
    check_problem(ask(dev, "still there?", conversation), 404, conversation)
    assert run_rows(database, conversation) == []


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("POST", "/v1/agents/nobody/runs", '{"input": "x"}', 404, "assistant"),
        ("POST", RUNS, '{"input": "x", "conversation_id": "unknown"}', 404, "unknown"),
        ("POST", RUNS, '{"input": "x", "conversation_id": "a\\u0000b"}', 422, "conversation_id"),
        ("POST", RUNS, "{}", 422, "input"),
        ("POST", RUNS, '{"input": ""}', 422, "input"),
        ("POST", RUNS, '{"input": "x", "conversationId": "y"}', 422, "conversationId"),
        ("POST", RUNS, '{"input": "\\ud800"}', 422, "input"),
        ("POST", RUNS, '{"input": ', 422, "JSON"),
        ("GET", "/v1/conversations?limit=0", None, 422, "limit"),
        ("GET", "/v1/conversations/%00", None, 422, "conversation_id"),
        ("GET", "/v1/conversations/unknown", None, 404, "unknown"),
        ("GET", "/nothing", None, 404, ""),
        ("PUT", RUNS, None, 405, ""),
    ],
)
def test_errors_are_problems(
    dev: httpx.Client, method: str, path: str, content: str | None, status: int, words: str
) -> None:
    response = dev.request(method, path, content=content, headers={"Content-Type": "application/json"})
    check_problem(response, status, words)


def test_text_that_jsonb_cannot_hold_comes_back_whole(dev: httpx.Client) -> None:
    words = "a\0b\x1a0000c"
    conversation = ask(dev, words).json()["conversation_id"]
    messages = dev.get(f"/v1/conversations/{conversation}").json()["messages"]
    assert messages[0]["content"] == words


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
@pytest.mark.parametrize(
    ("order", "status", "words"),
    [
        ("sleep 60", 422, "AGENT_TIMEOUT"),
        ("cut 3", 502, "reached"),
        ("loop current_time", 422, "AGENT_REQUEST_LIMIT"),
        ("fail key", 502, "key"),
        ("fail model", 502, "AGENT_MODEL"),
        ("fail length", 400, "too long"),
        ("fail request", 400, "refused"),
        ("fail teapot", 502, "refused"),
        ("fail rate", 503, "no more requests"),
        ("fail quota", 503, "credit"),
        ("fail server", 502, "failed"),
        ("fail down", 503, "overloaded or down"),
        ("fail nonsense", 502, "model"),
    ],
)
def test_failed_run_is_a_problem_without_secrets(
    scripted: httpx.Client, database: URL, headers: dict[str, str], order: str, status: int, words: str
) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]
    response = ask(scripted, order, conversation, headers=headers)
    if headers:
        name, document = events(response)[-1]
        # Read as a stream it is no answer of a provider's, but one that the agent has no use for.
        assert (name, document["status"]) == ("error", 422 if order == "fail nonsense" else status)
        assert words in document["detail"]
    else:
        check_problem(response, status, words)
        assert response.headers.get("Retry-After") == ("300" if order == "fail rate" else None)
    assert SECRET not in response.text
    *_, row = run_rows(database, conversation)
    assert row.status == "failed"
    assert words in row.error
    # The conversation is as it was, and goes on.
    assert ask(scripted, "again", conversation).json()["output"] == "Heard 2: again"


@pytest.mark.parametrize(
    ("order", "code", "final"),
    [
        ("sleep 60", "run_timeout", True),
        ("loop current_time", "request_limit_exceeded", True),
        ("fail key", None, True),
        ("fail model", None, True),
        ("fail length", "context_length_exceeded", True),
        ("fail request", "invalid_request", True),
        ("fail teapot", None, True),
        ("fail quota", "insufficient_quota", True),
        ("fail nonsense", None, False),
        ("fail rate", "rate_limit_exceeded", False),
        ("fail server", None, False),
        ("fail down", None, False),
        ("cut 3", None, False),
    ],
)
def test_failure_says_whether_to_try_again(
    scripted: httpx.Client, order: str, code: str | None, final: bool
) -> None:
    response = ask(scripted, order)
    assert response.headers.get("X-Should-Retry") == ("false" if final else None)
    assert response.json().get("code") == code
    name, document = events(ask(scripted, order, headers=SSE))[-1]
    assert (name, document.get("code")) == ("error", code)


def test_log_has_neither_secrets_nor_words_of_the_user(scripted: httpx.Client, logs: Path) -> None:
    words = f"flaky {uuid4()}"
    check_problem(ask(scripted, "fail key"), 502)
    ask(scripted, words)
    log = (logs / "scripted").read_text(encoding="utf-8")
    assert "ModelAuthenticationError" in log
    assert SECRET not in log
    assert words not in log


def test_provider_that_fails_once_is_asked_again(scripted: httpx.Client) -> None:
    words = f"flaky {uuid4()}"
    assert ask(scripted, words).json()["output"] == f"Heard 1: {words}"


def test_model_that_is_too_slow_is_told_from_one_that_fails() -> None:
    # Ten minutes pass before the client gives up by itself.
    failure = explain(ModelTimeoutError("model", SECRET))
    assert (failure.status, failure.detail) == (
        HTTPStatus.GATEWAY_TIMEOUT,
        "The model did not answer in time.",
    )


def test_tool_is_called_with_what_the_model_says(scripted: httpx.Client) -> None:
    found = dict(events(ask(scripted, 'call current_time {"time_zone": "Asia/Tokyo"}', headers=SSE)))
    assert found["tool_call"]["arguments"] == {"time_zone": "Asia/Tokyo"}
    assert found["tool_result"]["content"].endswith("JST")
    assert found["done"]["output"] == f"The tool said: {found['tool_result']['content']}"


@pytest.mark.parametrize("zone", ["Europe", "nowhere", "../etc", "a\\u0000b"])
def test_time_zone_that_is_none_is_for_the_model_to_mend(scripted: httpx.Client, zone: str) -> None:
    output = ask(scripted, "call current_time " + json.dumps({"time_zone": zone})).json()["output"]
    assert "use an IANA name" in output


def test_request_limit_is_for_each_run(scripted: httpx.Client) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]
    # More turns than the limit of 3, each of which asks the model once.
    for turn in range(2, 7):
        assert ask(scripted, "and", conversation).json()["output"] == f"Heard {turn}: and"


def test_what_a_failed_run_has_used_counts(scripted: httpx.Client, database: URL) -> None:
    def requests() -> int:
        return sum(day["requests"] for day in scripted.get("/v1/usage").json()["days"])

    conversation, before = ask(scripted, "hello").json()["conversation_id"], requests()
    assert ask(scripted, "loop current_time {}", conversation).status_code == 422
    *_, row = run_rows(database, conversation)
    assert (row.status, row.usage["requests"]) == ("failed", 3)
    assert requests() == before + 3


def test_connection_is_kept_alive_while_the_model_thinks(scripted: httpx.Client) -> None:
    response = ask(scripted, "sleep 0.5", headers=SSE)
    assert response.text.count(": ping\n\n") >= 2
    assert events(response)[-1][1]["output"] == "Heard 1: sleep 0.5"


def test_concurrent_runs_of_one_conversation(scripted: httpx.Client, database: URL) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(scripted, "sleep 1", conversation), range(8)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}
    for answer in answers:
        # They are refused at once, before they cost anything.
        assert (answer.status_code == 200) == (answer.elapsed.total_seconds() >= 1)
    check_problem(next(answer for answer in answers if answer.status_code == 409), 409)
    messages = scripted.get(f"/v1/conversations/{conversation}").json()["messages"]
    assert [message["content"] for message in messages if message["role"] == "user"] == ["hello", "sleep 1"]
    assert Counter(row.status for row in run_rows(database, conversation)) == {"succeeded": 2}


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_run_is_cancelled_when_the_caller_leaves(
    scripted: httpx.Client, provider: httpx.Client, database: URL, headers: dict[str, str]
) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]
    before = counts(provider)

    def statuses() -> list[str]:
        return [row.status for row in run_rows(database, conversation)]

    if headers:
        body = {"input": "sleep 60", "conversation_id": conversation}
        with scripted.stream("POST", RUNS, json=body, headers=headers) as response:
            assert "event: run" in response.iter_lines()
            wait_for(lambda: counts(provider)["open"] > before["open"])
    else:
        with pytest.raises(httpx.ReadTimeout):
            ask(scripted, "sleep 60", conversation, timeout=0.3)
    # The model's work ends too, and nobody pays for more of it.
    wait_for(lambda: counts(provider) == before | {"cancelled": before["cancelled"] + 1})
    wait_for(lambda: "running" not in statuses())
    assert statuses() == ["succeeded", "cancelled"]
    assert ask(scripted, "again", conversation).json()["output"] == "Heard 2: again"


def said_in(client: httpx.Client, conversation: str) -> list[tuple[str, str]]:
    found = client.get(f"/v1/conversations/{conversation}").json()["messages"]
    return [(message["role"], message["content"]) for message in found]


def listed(client: httpx.Client) -> set[str]:
    page = client.get("/v1/conversations", params={"limit": 50}).json()["conversations"]
    return {conversation["id"] for conversation in page}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "another process"])
def test_what_was_stopped_is_kept(servers: list[Server], first: bool, elsewhere: bool) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(httpx.Client(base_url=server.address, timeout=20)) for server in servers
        )
        conversation = None if first else ask(one, "hello").json()["conversation_id"]
        body = {"input": "slow 300 0.05 tick", "conversation_id": conversation}
        with one.stream("POST", RUNS, json=body, headers=SSE) as response:
            lines = response.iter_lines()
            run = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
            next(line for line in lines if "tick/3" in line)
            assert (two if elsewhere else one).post(f"/v1/runs/{run['run_id']}/cancel").is_success
            assert "event: error" in list(lines)
        conversation = run["conversation_id"]
        question, answer = said_in(two, conversation)[-2:]
        assert question == ("user", "slow 300 0.05 tick")
        assert answer[0] == "assistant"
        assert answer[1].startswith("tick/1 tick/2 tick/3")
        assert conversation in listed(two)
        spoken = 2 if first else 3
        assert ask(two, "again", conversation).json()["output"] == f"Heard {spoken}: again"
        usage = one.get(f"/v1/conversations/{conversation}").json()["usage"]
        assert usage["requests"] == spoken


def test_what_was_stopped_before_any_answer(scripted: httpx.Client, provider: httpx.Client) -> None:
    before = counts(provider)
    with scripted.stream("POST", RUNS, json={"input": "sleep 60"}, headers=SSE) as response:
        lines = response.iter_lines()
        run = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        wait_for(lambda: counts(provider)["open"] > before["open"])
        scripted.post(f"/v1/runs/{run['run_id']}/cancel")
        list(lines)
    assert said_in(scripted, run["conversation_id"]) == [("user", "sleep 60")]


@pytest.mark.parametrize("order", ["slow 300 0.1 x", "sleep 60", "call wait {}"])
def test_next_question_may_follow_a_stop_at_once(scripted: httpx.Client, order: str) -> None:
    with scripted.stream("POST", RUNS, json={"input": order}, headers=SSE) as response:
        lines = response.iter_lines()
        run = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        assert scripted.post(f"/v1/runs/{run['run_id']}/cancel").status_code == 202
        assert ask(scripted, "again", run["conversation_id"]).json()["output"] == "Heard 2: again"


def test_tool_call_that_was_stopped_ends_nothing(scripted: httpx.Client, provider: httpx.Client) -> None:
    with scripted.stream("POST", RUNS, json={"input": "call wait {}"}, headers=SSE) as response:
        lines = response.iter_lines()
        run = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        next(line for line in lines if line == "event: tool_call")
        scripted.post(f"/v1/runs/{run['run_id']}/cancel")
        list(lines)
    conversation = run["conversation_id"]
    assert ("user", "call wait {}") in said_in(scripted, conversation)
    assert ask(scripted, "again", conversation).json()["output"] == "Heard 2: again"
    assert ask(scripted, "again", conversation, headers=SSE).is_success


@pytest.mark.parametrize("order", ["fail server", "sleep 60"])
def test_a_conversation_whose_first_question_failed_is_not_listed(scripted: httpx.Client, order: str) -> None:
    with scripted.stream("POST", RUNS, json={"input": order}, headers=SSE) as response:
        lines = response.iter_lines()
        run = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        if order == "sleep 60":  # It is while the run goes on.
            assert run["conversation_id"] in listed(scripted)
        list(lines)
    assert run["conversation_id"] not in listed(scripted)
    # Its client, who has its id, may go on.
    assert said_in(scripted, run["conversation_id"]) == []
    assert ask(scripted, "again", run["conversation_id"]).json()["output"] == "Heard 1: again"
    assert run["conversation_id"] in listed(scripted)


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_half_of_a_surrogate_pair_is_replaced(scripted: httpx.Client, headers: dict[str, str]) -> None:
    response = ask(scripted, "half", headers=headers)
    answer = events(response)[-1][1] if headers else response.json()
    assert answer["output"] == "x\ufffdy"
    messages = scripted.get(f"/v1/conversations/{answer['conversation_id']}").json()["messages"]
    assert messages[-1]["content"] == answer["output"]


def test_answer_and_the_end_of_its_run_are_stored_both_or_neither(
    own: httpx.Client, own_database: URL
) -> None:
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%UPDATE runs SET status = CAST%'"
    )
    engine = sync_engine(own_database)
    with (
        ThreadPoolExecutor(1) as pool,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin,
    ):
        conversation = ask(own, "hello").json()["conversation_id"]
        answer = pool.submit(ask, own, "sleep 1", conversation)
        wait_for(lambda: len(run_rows(own_database, conversation)) == 2)
        with engine.begin() as lock:
            lock.execute(text("LOCK TABLE runs IN SHARE MODE"))
            wait_for(lambda: admin.execute(kill).all(), 20)
        check_problem(answer.result(), 503, "database")
        assert [row.status for row in run_rows(own_database, conversation)] == ["succeeded", "failed"]
        assert ask(own, "again", conversation).json()["output"] == "Heard 2: again"
    engine.dispose()


def test_run_that_the_end_of_the_service_cuts_off_is_interrupted(
    database: URL, logs: Path, model: dict[str, str]
) -> None:
    grace = {"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "1"}
    cut: list[tuple[str, Future[httpx.Response]]] = []
    with ThreadPoolExecutor(2) as pool:
        with serving(logs / "cut-off", database, **model, **grace) as client:
            for headers in ({}, SSE):
                conversation = ask(client, "hello").json()["conversation_id"]
                cut.append(
                    (conversation, pool.submit(ask, client, "sleep 15", conversation, headers=headers))
                )
            wait_for(lambda: all(len(run_rows(database, conversation)) == 2 for conversation, _ in cut))
        assert all(answer.exception() is not None for _, answer in cut)
    for conversation, _ in cut:
        assert [row.status for row in run_rows(database, conversation)] == ["succeeded", "interrupted"]


def test_log_of_a_failed_statement_has_no_words_of_the_user(
    own: httpx.Client, own_database: URL, logs: Path
) -> None:
    engine = sync_engine(own_database)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER TABLE conversations ALTER title TYPE integer USING NULL"))
        for headers in ({}, SSE):
            check_problem(ask(own, "between us", headers=headers), 500, "log")
        connection.execute(text("ALTER TABLE conversations ALTER title TYPE text"))
    engine.dispose()
    log = (logs / "own").read_text(encoding="utf-8")
    assert log.count("DatatypeMismatch") >= 2
    assert "between us" not in log


def test_production_wants_a_key(prd: httpx.Client) -> None:
    key = prd.headers["Authorization"]
    with httpx.Client(base_url=prd.base_url) as stranger:
        for headers in ({}, {"Authorization": f"{key}x"}, {"Authorization": "Basic eDp5"}):
            response = stranger.get("/v1/agents", headers=headers)
            check_problem(response, 401)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        check_problem(ask(stranger, "hello"), 401)
        check_problem(stranger.get("/v1/conversations"), 401)
        assert stranger.get("/health").status_code == 200
    assert prd.get("/v1/agents").status_code == 200
    check_problem(prd.get("/docs"), 404)
    check_problem(prd.get("/openapi.json"), 404)


def test_production_without_a_key_of_the_provider_names_the_variable(prd: httpx.Client) -> None:
    check_problem(ask(prd, "hello"), 503, "_API_KEY")


def test_readiness_follows_the_revision(own: httpx.Client, own_database: URL) -> None:
    engine = sync_engine(own_database)
    with engine.connect() as connection:
        config = alembic_config_for(connection)
        first = ScriptDirectory.from_config(config).get_bases()[0]
        try:
            for target in (first, "base"):
                command.downgrade(config, target)
                check_problem(own.get("/ready"), 503, "Run: alembic -c db/alembic.ini upgrade head")
            connection.execute(text("DROP TABLE alembic_version"))
            connection.commit()
            check_problem(
                own.get("/ready"), 503, "no tables yet. Run: alembic -c db/alembic.ini upgrade head"
            )
            check_problem(own.get("/v1/conversations"), 503, "/ready says what to do")
        finally:
            command.upgrade(config, "head")
        assert own.get("/ready").status_code == 200
    engine.dispose()


async def why_not_ready(url: URL) -> str:
    engine = async_engine(url)
    why_not, _ = await Readiness(engine).check()
    await engine.dispose()
    return why_not


def test_a_database_ahead_of_the_code(own: httpx.Client, own_database: URL) -> None:
    message = "The database is at revision newer, which this code doesn't have"
    set_revision = text("UPDATE alembic_version SET version_num = :revision")
    engine = sync_engine(own_database)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        head = connection.scalar(text("SELECT version_num FROM alembic_version"))
        connection.execute(set_revision, {"revision": "newer"})
        try:
            assert message in asyncio.run(why_not_ready(own_database))
            # This service was told to start nevertheless.
            document = own.get("/ready").json()
            assert document["status"] == "ok"
            assert message in document["warning"]
        finally:
            connection.execute(set_revision, {"revision": head})
    engine.dispose()


def test_database_that_is_gone_is_a_problem(own: httpx.Client, own_database: URL, postgres: Engine) -> None:
    with unreachable(postgres, own_database):
        assert own.get("/health").status_code == 200
        check_problem(own.get("/ready"), 503, "The database can't be reached.")
        check_problem(own.get("/v1/conversations"), 503, "The database can't be reached.")
    assert own.get("/ready").status_code == 200


def test_service_that_can_not_start_says_why_in_one_line() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "uvicorn", "chassis.tests.app:app", "--port", "0"],
        cwd=WORKSPACE,
        env=clean_env(RUNTIME_ENV="prd"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode != 0
    [line] = process.stderr.splitlines()
    assert "The service can't start: " in line
    assert "Set DATABASE_URL, or DB_HOST" in line
