"""The service over HTTP, as a process of its own on a real PostgreSQL."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from alembic import command
from pydantic_ai.exceptions import ModelTimeoutError
from sqlalchemy import URL, Engine, text

from agents.failures import explain
from db.session import sync_engine
from db.settings import WORKSPACE
from tests.client import RUNS, SSE, ask, check_problem, counts, events, run_rows, wait_for
from tests.conftest import alembic_config_for, clean_env, serving, unreachable, upgrade
from tests.provider import SECRET


def test_health_and_readiness(dev: httpx.Client) -> None:
    assert dev.get("/health").json() == {"status": "ok"}
    assert dev.get("/ready").json() == {"status": "ok"}


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
        ("sleep 60", 504, "AGENT_TIMEOUT"),
        ("cut 3", 502, "reached"),
        ("loop current_time", 502, "AGENT_REQUEST_LIMIT"),
        ("fail key", 502, "key"),
        ("fail model", 502, "AGENT_MODEL"),
        ("fail length", 502, "too long"),
        ("fail request", 502, "refused"),
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
        assert (name, document["status"]) == ("error", status)
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
    output = ask(scripted, f'call current_time {{"time_zone": "{zone}"}}').json()["output"]
    assert "use an IANA name" in output


def test_request_limit_is_for_each_run(scripted: httpx.Client) -> None:
    conversation = ask(scripted, "hello").json()["conversation_id"]
    # More turns than the limit of 3, each of which asks the model once.
    for turn in range(2, 7):
        assert ask(scripted, "and", conversation).json()["output"] == f"Heard {turn}: and"


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


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_half_of_a_surrogate_pair_is_replaced(scripted: httpx.Client, headers: dict[str, str]) -> None:
    response = ask(scripted, "half", headers=headers)
    answer = events(response)[-1][1] if headers else response.json()
    assert answer["output"] == "x\ufffdy"
    messages = scripted.get(f"/v1/conversations/{answer['conversation_id']}").json()["messages"]
    assert messages[-1]["content"] == answer["output"]


def test_answer_and_the_end_of_its_run_are_stored_both_or_neither(
    new_database: Callable[[], URL], logs: Path, model: dict[str, str]
) -> None:
    url = new_database()
    upgrade(url)
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%UPDATE runs SET status = ''succeeded''%'"
    )
    engine = sync_engine(url)
    with (
        serving(logs / "locked", url, **model) as client,
        ThreadPoolExecutor(1) as pool,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin,
    ):
        conversation = ask(client, "hello").json()["conversation_id"]
        answer = pool.submit(ask, client, "sleep 1", conversation)
        wait_for(lambda: len(run_rows(url, conversation)) == 2)
        with engine.begin() as lock:
            lock.execute(text("LOCK TABLE runs IN SHARE MODE"))
            wait_for(lambda: admin.execute(kill).all(), 20)
        check_problem(answer.result(), 503, "database")
        assert [row.status for row in run_rows(url, conversation)] == ["succeeded", "failed"]
        assert ask(client, "again", conversation).json()["output"] == "Heard 2: again"
    engine.dispose()


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_run_that_the_end_of_the_service_cuts_off_is_interrupted(
    database: URL, logs: Path, model: dict[str, str], headers: dict[str, str]
) -> None:
    grace = {"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "1"}
    with ThreadPoolExecutor(1) as pool:
        with serving(logs / "cut-off", database, **model, **grace) as client:
            conversation = ask(client, "hello").json()["conversation_id"]
            answer = pool.submit(ask, client, "sleep 15", conversation, headers=headers)
            wait_for(lambda: len(run_rows(database, conversation)) == 2)
        assert answer.exception() is not None
    assert [row.status for row in run_rows(database, conversation)] == ["succeeded", "interrupted"]


@pytest.mark.parametrize("headers", [{}, SSE], ids=["json", "events"])
def test_log_of_a_failed_statement_has_no_words_of_the_user(
    new_database: Callable[[], URL], logs: Path, model: dict[str, str], headers: dict[str, str]
) -> None:
    url = new_database()
    upgrade(url)
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE conversations ALTER title TYPE integer USING NULL"))
    engine.dispose()
    with serving(logs / "words", url, **model) as client:
        check_problem(ask(client, "between us", headers=headers), 500, "log")
    log = (logs / "words").read_text(encoding="utf-8")
    assert "DatatypeMismatch" in log
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


@pytest.fixture(scope="module")
def bare_database(new_database: Callable[[], URL]) -> URL:
    """A database that has no tables at first."""
    return new_database()


@pytest.fixture(scope="module")
def bare(bare_database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service on that database."""
    with serving(logs / "bare", bare_database) as client:
        yield client


def test_readiness_follows_the_revision(bare: httpx.Client, bare_database: URL) -> None:
    check_problem(bare.get("/ready"), 503, "no tables yet. Run: alembic -c db/alembic.ini upgrade head")
    check_problem(bare.get("/v1/conversations"), 503, "/ready says what to do")
    engine = sync_engine(bare_database)
    with engine.connect() as connection:
        command.upgrade(alembic_config_for(connection), "head")
        assert bare.get("/ready").status_code == 200
        command.downgrade(alembic_config_for(connection), "-1")
        check_problem(bare.get("/ready"), 503, "Run: alembic -c db/alembic.ini upgrade head")
    engine.dispose()


@pytest.mark.parametrize("when_ahead", ["error", "start"])
def test_a_database_ahead_of_the_code(new_database: Callable[[], URL], logs: Path, when_ahead: str) -> None:
    url = new_database()
    upgrade(url)
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    engine.dispose()
    with serving(logs / f"ahead-{when_ahead}", url, MIGRATE_WHEN_AHEAD=when_ahead) as client:
        if when_ahead == "start":
            document = client.get("/ready").json()
            assert document["status"] == "ok"
            assert "The database is at revision newer, which this code doesn't have" in document["warning"]
        else:
            check_problem(
                client.get("/ready"), 503, "The database is at revision newer, which this code doesn't have"
            )


def test_database_that_is_gone_is_a_problem(bare: httpx.Client, bare_database: URL, postgres: Engine) -> None:
    with unreachable(postgres, bare_database):
        assert bare.get("/health").status_code == 200
        check_problem(bare.get("/ready"), 503, "The database can't be reached.")
        check_problem(bare.get("/v1/conversations"), 503, "The database can't be reached.")
    check_problem(bare.get("/ready"), 503, "upgrade head")


def test_service_that_can_not_start_says_why_in_one_line() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "uvicorn", "api.main:app", "--port", "0"],
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
