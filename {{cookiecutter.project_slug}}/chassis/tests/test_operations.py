"""How the service behaves in operation: what it refuses, what it logs, and what telemetry tells of it."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from sqlalchemy import URL, text

from chassis.database.engine import sync_engine
from chassis.settings import WORKSPACE
from chassis.testing.client import RUNS, SSE, ask, check_problem, events, wait_for
from chassis.testing.provider import SECRET
from chassis.testing.service import clean_env
from chassis.tests.collector import Collector, collecting
from chassis.tests.service import create_key, serving

SITE = "https://a.example"
ORIGINS = (
    f"{SITE}, https://App.Example.com:443, https://*.b.example, vscode-webview://*, app://obsidian.md, null"
)
JSON = {"Content-Type": "application/json"}
PAGE = WORKSPACE / "chassis/chat"
WORDS = "between us"


@pytest.fixture(scope="module")
def strict(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service with narrow limits, one website that may call it, and logs as in production."""
    limits = {"API_MAX_BODY_BYTES": "2000", "API_BODY_SECONDS": "1", "API_CORS_ORIGINS": ORIGINS}
    with serving(logs / "strict", database, LOG_FORMAT="json", **limits, **model) as client:
        yield client


@contextmanager
def refused_titles(url: URL) -> Iterator[None]:
    """Make PostgreSQL refuse a new conversation, with a message that quotes its title."""
    engine = sync_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        table = "ALTER TABLE conversations"
        connection.execute(text(f"{table} ADD CONSTRAINT no_title CHECK (title IS NULL) NOT VALID"))
        try:
            yield
        finally:
            connection.execute(text(f"{table} DROP CONSTRAINT no_title"))
    engine.dispose()


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def line_of(log: Path, request_id: str) -> dict[str, Any]:
    """The line of a request, which is written when its answer has been sent."""
    found = wait_for(
        lambda: [
            line
            for line in lines(log)
            if (line["logger"], line.get("request_id")) == ("api.access", request_id)
        ]
    )
    assert len(found) == 1
    return found[0]


def test_open_doors_are_named_in_one_line() -> None:
    doors = {"API_KEYS_REQUIRED": "False", "API_DOCS": "True", "API_CORS_ORIGINS": "*"}
    database = {"DATABASE_URL": "postgresql://agent:for-development-only@db/x"}
    process = subprocess.run(
        [sys.executable, "-m", "uvicorn", "chassis.tests.app:app", "--port", "0"],
        cwd=WORKSPACE,
        env=clean_env(RUNTIME_ENV="prd", **doors, **database),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode != 0
    [line] = process.stderr.splitlines()
    for words in ("RUNTIME_ENV=prd", *doors, "password of compose.yaml"):
        assert words in line


@pytest.mark.parametrize("size", [2001, 5_000_000])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_body_that_is_too_large(strict: httpx.Client, size: int, announced: bool) -> None:
    body = json.dumps({"input": "x" * (size - 13)}).encode()
    assert len(body) == size
    content: Any = body if announced else iter([body[:1500], body[1500:]])
    check_problem(strict.post(RUNS, content=content, headers=JSON), 413, "2000 bytes at most")


def test_body_that_is_just_small_enough(strict: httpx.Client) -> None:
    body = json.dumps({"input": "x" * (2000 - 13)}).encode()
    assert strict.post(RUNS, content=body, headers=JSON).status_code == 200


def test_body_that_does_not_end(strict: httpx.Client) -> None:
    with socket.create_connection((strict.base_url.host, strict.base_url.port or 80), timeout=10) as caller:
        head = (
            f"POST {RUNS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        )
        caller.sendall(head.encode() + b'{"input": "')
        answer = b""
        while chunk := caller.recv(1000):  # until the service closes the connection
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body was not complete within 1 seconds." in answer


def test_limits_of_the_body_are_none_of_the_answer(strict: httpx.Client) -> None:
    found = events(ask(strict, "slow 4 0.5 x", headers=SSE))
    assert found[-1][1]["output"] == "x/1 x/2 x/3 x/4 "


def test_only_the_named_website_may_call(strict: httpx.Client, dev: httpx.Client) -> None:
    def ask_first(client: httpx.Client, origin: str) -> httpx.Response:
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        return client.options(RUNS, headers={"Origin": origin, **wanted})

    allowed = ask_first(strict, SITE)
    assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, SITE)
    # Its scripts can read errors too, and the id to ask about.
    too_large = strict.post(RUNS, content=b"x" * 2001, headers={"Origin": SITE})
    assert (too_large.status_code, too_large.headers["Access-Control-Allow-Origin"]) == (413, SITE)
    assert "X-Request-ID" in too_large.headers["Access-Control-Expose-Headers"]
    for client, origin in ((strict, "https://b.example"), (dev, SITE)):
        for answer in (ask_first(client, origin), client.get("/health", headers={"Origin": origin})):
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_website_can_read_an_error_that_nobody_foresaw(strict: httpx.Client, database: URL) -> None:
    with refused_titles(database):
        answer = strict.post(RUNS, json={"input": "hello"}, headers={"Origin": SITE})
    check_problem(answer, 500, "log")
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert answer.headers["X-Request-ID"]


def preflight(client: httpx.Client, origin: str, method: str, headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options(RUNS, headers={"Origin": origin, **asked})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://one.b.example", True),
        ("https://two.one.b.example", True),
        ("vscode-webview://0a1b2c", True),
        ("app://obsidian.md", True),
        ("null", True),
        ("https://b.example", False),
        ("https://xb.example", False),
        ("https://one.b.example.evil", False),
        ("https://evil/.b.example", False),
        ("http://one.b.example", False),
        ("https://one.b.example:8443", False),
        ("app://other", False),
    ],
)
def test_origins_of_websites_and_apps(strict: httpx.Client, origin: str, allowed: bool) -> None:
    expected = origin if allowed else None
    assert (
        preflight(strict, origin, "POST", "content-type").headers.get("Access-Control-Allow-Origin")
        == expected
    )
    answer = strict.get("/health", headers={"Origin": origin})
    assert answer.headers.get("Access-Control-Allow-Origin") == expected


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout",
        "authorization,user-agent",
        "traceparent,tracestate,baggage,sentry-trace",
        "idempotency-key,last-event-id,x-request-id,openai-organization,x-my-own",
    ],
)
def test_headers_of_sdks_and_tracing_are_let_through(strict: httpx.Client, method: str, headers: str) -> None:
    answer = preflight(strict, SITE, method, headers)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Headers"]) == (200, headers)
    assert method in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/", "/v1/agents", "/v1/conversations?limit=1", "/docs"]
)
def test_head_is_answered_as_get(dev: httpx.Client, path: str) -> None:
    get, head = dev.get(path), dev.head(path)
    # The page at / is there only where a service has one.
    expected = 404 if path == "/" and not PAGE.exists() else 200
    assert (head.status_code, head.content) == (get.status_code, b"") == (expected, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert head.headers.get(name) == get.headers.get(name)


def test_head_of_a_stream_ends_at_once(scripted: httpx.Client) -> None:
    with scripted.stream("POST", RUNS, json={"input": "slow 20 0.1 x"}, headers=SSE) as response:
        run = next(json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        head = scripted.head(f"/v1/runs/{run['run_id']}/events", timeout=1)
    assert head.headers["content-type"].startswith("text/event-stream")
    check_problem(scripted.get(f"/v1/runs/{uuid4()}"), 404)
    assert scripted.head(f"/v1/runs/{uuid4()}").status_code == 404
    refused = scripted.head(RUNS)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert "HEAD" in scripted.put("/health").headers["Allow"]


def test_lines_of_a_run_name_it_and_its_request(strict: httpx.Client, logs: Path) -> None:
    answer = strict.post(RUNS, json={"input": WORDS}, params={"q": WORDS}, headers={"X-Request-ID": "mine.1"})
    assert answer.headers["X-Request-ID"] == "mine.1"
    line = line_of(logs / "strict", "mine.1")
    assert line.pop("duration_ms") > 0
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line.pop("message").startswith("POST /v1/agents/{agent_id}/runs 200 in ")
    assert line == {
        "level": "INFO",
        "logger": "api.access",
        "request_id": "mine.1",
        "run_id": answer.json()["run_id"],
        "method": "POST",
        "route": "/v1/agents/{agent_id}/runs",
        "status": 200,
        "owner": "anonymous",
    }
    failed = ask(strict, "fail server", headers=SSE)
    request_id = failed.headers["X-Request-ID"]
    run_id = events(failed)[0][1]["run_id"]
    [warning] = [line for line in lines(logs / "strict") if line["level"] == "WARNING"]
    assert (warning["request_id"], warning["run_id"]) == (request_id, run_id)
    check_problem(strict.get(f"/nothing/{WORDS}"), 404)
    log = (logs / "strict").read_text(encoding="utf-8")
    for words in (WORDS, WORDS.replace(" ", "+"), WORDS.replace(" ", "%20"), "not-a-real-key", SECRET):
        assert words not in log


@pytest.mark.parametrize("shown", [b"a b", b"x" * 65, "\u00fc".encode(), b'"}'])
def test_request_id_that_is_not_well_formed_is_replaced(strict: httpx.Client, shown: bytes) -> None:
    answer = strict.get("/health", headers={b"X-Request-ID": shown})
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-ID"])


class Observed(NamedTuple):
    """What a service in production told of four runs: its log, and what a collector received."""

    log: Path
    collector: Collector
    answers: list[httpx.Response]
    key: str
    unwanted: tuple[str, ...]


def trace(number: int) -> str:
    return f"{number + 1:032x}"


@pytest.fixture(scope="module")
def observed(own_database: URL, logs: Path, model: dict[str, str]) -> Observed:
    """It has ended, and sent all by then."""
    log, key, answers = logs / "observed", create_key(own_database), list[httpx.Response]()
    with (
        collecting() as (collector, endpoint),
        serving(log, own_database, RUNTIME_ENV="prd", **model, **endpoint) as client,
    ):
        client.headers["Authorization"] = f"Bearer {key}"

        def run(words: str, **headers: str) -> None:
            parent = {"traceparent": f"00-{trace(len(answers))}-{1:016x}-01"}
            answers.append(ask(client, words, headers=parent | headers, params={"q": WORDS}))

        assert client.get("/ready").status_code == 200
        run(WORDS)
        run(WORDS, **SSE)
        run("fail server")
        with refused_titles(own_database):
            run(WORDS)
    assert [answer.status_code for answer in answers] == [200, 200, 502, 500]
    asked = (WORDS, WORDS.replace(" ", "+"))
    return Observed(log, collector, answers, key, (*asked, SECRET, "not-a-real-key", key.rpartition("_")[2]))


def test_log_of_production_tells_where_it_failed_but_no_words(observed: Observed) -> None:
    failed = observed.answers[3]
    check_problem(failed, 500, "The service's log says why.")
    line = line_of(observed.log, failed.headers["X-Request-ID"])
    assert (line["status"], line["owner"]) == (500, observed.key.split("_")[1])
    [error] = [line for line in lines(observed.log) if line["level"] == "ERROR"]
    assert error["request_id"] == failed.headers["X-Request-ID"]
    assert "psycopg.errors.CheckViolation" in error["error"]
    assert "chassis/runs/records.py" in error["error"]
    runs = {line["trace_id"] for line in lines(observed.log) if line.get("run_id")}
    assert runs == {trace(0), trace(1), trace(2)}
    log = observed.log.read_text(encoding="utf-8")
    assert [words for words in observed.unwanted if words in log] == []


@pytest.mark.parametrize(("level", "words"), [("INFO", False), ("DEBUG", True)])
def test_warnings_of_libraries_are_lines_of_the_log(level: str, words: bool) -> None:
    warn = (
        "import warnings; from chassis.http.logs import configure; from chassis.http.settings import ApiSettings;"
        f"configure(ApiSettings.from_env()); warnings.warn({WORDS!r}, RuntimeWarning, stacklevel=1)"
    )
    database = "postgresql://u:p@db.example/d"
    env = clean_env(RUNTIME_ENV="prd", DATABASE_URL=database, LOG_LEVEL=level)
    done = subprocess.run(
        [sys.executable, "-c", warn], cwd=WORKSPACE, env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    *_, line = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["level"], line["logger"]) == ("WARNING", "py.warnings")
    assert "RuntimeWarning" in line["message"]
    assert "<string>:1" in line["message"]
    assert (WORDS in line["message"]) == words


def test_traces_and_metrics_tell_of_runs_without_their_words(observed: Observed) -> None:
    spans, metrics = observed.collector.spans(), observed.collector.metrics()
    # One trace for each request, none for health checks and upkeep.
    assert list(spans) == [trace(number) for number in range(4)]
    failed = [span.name for span in spans[trace(3)] if span.status.code == Status.STATUS_CODE_ERROR]
    assert any(name.startswith("WITH") for name in failed)
    for number in range(3):
        names = " ".join(span.name for span in spans[trace(number)])
        for name in ("POST /v1/agents/{agent_id}/runs", "invoke_agent", "chat fake", "WITH"):
            assert name in names
    assert "SELECT" in [span.name.split()[0] for span in spans[trace(0)]], "the key is looked up"
    assert {"http.server.request.duration", "gen_ai.client.token.usage", "agent.streams"} <= metrics.keys()
    assert {"agent.run.duration", "agent.run.first_words", "agent.tokens"} <= metrics.keys()
    assert "as_int: 0" in metrics["agent.runs.underway"]
    for words in ("assistant", "succeeded", "failed"):
        assert words in metrics["agent.runs"]
    sent = observed.collector.sent()
    assert [words for words in observed.unwanted if words.encode() in sent] == []


def test_telemetry_without_a_collector_stops_nothing(own: httpx.Client) -> None:
    assert ask(own, "hello").status_code == 200
