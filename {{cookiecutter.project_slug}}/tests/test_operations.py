"""How the service behaves in operation: what it refuses, what it logs, and what telemetry tells of it."""

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import URL, text

from db.session import sync_engine
from db.settings import WORKSPACE
from tests.client import RUNS, SSE, ask, check_problem, events, wait_for
from tests.conftest import clean_env, create_key, serving, upgrade
from tests.provider import SECRET

SITE = "https://a.example"
JSON = {"Content-Type": "application/json"}
WORDS = "between us"


@pytest.fixture(scope="module")
def strict(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service with narrow limits, one website that may call it, and logs as in production."""
    limits = {"API_MAX_BODY_BYTES": "2000", "API_BODY_SECONDS": "1", "API_CORS_ORIGINS": SITE}
    with serving(logs / "strict", database, LOG_FORMAT="json", **limits, **model) as client:
        yield client


@pytest.fixture
def with_tables(new_database: Callable[[], URL]) -> URL:
    url = new_database()
    upgrade(url)
    return url


def refuse_titles(url: URL) -> None:
    """Make PostgreSQL refuse a new conversation, with a message that quotes its title."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE conversations ADD CHECK (title IS NULL) NOT VALID"))
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
        [sys.executable, "-m", "uvicorn", "api.main:app", "--port", "0"],
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
    log = (logs / "strict").read_text(encoding="utf-8")
    for words in (WORDS, WORDS.replace(" ", "+"), "not-a-real-key", SECRET):
        assert words not in log


@pytest.mark.parametrize("shown", [b"a b", b"x" * 65, "\u00fc".encode(), b'"}'])
def test_request_id_that_is_not_well_formed_is_replaced(strict: httpx.Client, shown: bytes) -> None:
    answer = strict.get("/health", headers={b"X-Request-ID": shown})
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-ID"])


def test_log_of_production_tells_where_it_failed_but_no_words(
    with_tables: URL, logs: Path, model: dict[str, str]
) -> None:
    refuse_titles(with_tables)
    log = logs / "where"
    with serving(log, with_tables, RUNTIME_ENV="prd", **model) as client:
        key = create_key(with_tables)
        check_problem(client.get(f"/nothing/{WORDS}"), 404)
        failed = ask(client, WORDS, headers={"Authorization": f"Bearer {key}"})
        check_problem(failed, 500, "The service's log says why.")
    line = line_of(log, failed.headers["X-Request-ID"])
    assert (line["status"], line["owner"]) == (500, key.split("_")[1])
    [error] = [line for line in lines(log) if line["level"] == "ERROR"]
    assert error["request_id"] == failed.headers["X-Request-ID"]
    assert "psycopg.errors.CheckViolation" in error["error"]
    assert "agents/records.py" in error["error"]
    for words in (WORDS, WORDS.replace(" ", "%20"), key.rpartition("_")[2], "not-a-real-key"):
        assert words not in log.read_text(encoding="utf-8")


class Collector:
    """What an OpenTelemetry collector has received."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = defaultdict(list)

    def spans(self) -> dict[str, list[Span]]:
        """The spans of each trace."""
        found = defaultdict(list)
        for body in self.bodies["/v1/traces"]:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found[span.trace_id.hex()].append(span)
        return found

    def metrics(self) -> dict[str, str]:
        """The metrics, as text."""
        return {
            metric.name: str(metric)
            for body in self.bodies["/v1/metrics"]
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def collecting() -> Iterator[tuple[Collector, dict[str, str]]]:
    """Run a collector, and yield it with the settings that make the service send to it."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            collector.bodies[self.path].append(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the library's own name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()


def test_traces_and_metrics_tell_of_runs_without_their_words(
    with_tables: URL, logs: Path, model: dict[str, str]
) -> None:
    traces = [f"{number:032x}" for number in (1, 2, 3, 4)]
    with collecting() as (collector, endpoint):
        log = logs / "telemetry"
        variables = {**model, **endpoint, "RUNTIME_ENV": "prd"}
        with serving(log, with_tables, **variables) as client:
            key = create_key(with_tables)

            def run(trace_id: str, words: str, **headers: str) -> int:
                parent = {"traceparent": f"00-{trace_id}-{1:016x}-01", "Authorization": f"Bearer {key}"}
                return ask(client, words, headers=parent | headers, params={"q": WORDS}).status_code

            assert client.get("/ready").status_code == 200
            assert run(traces[0], WORDS) == 200
            assert run(traces[1], WORDS, **SSE) == 200
            assert run(traces[2], "fail server") == 502
            refuse_titles(with_tables)
            assert run(traces[3], WORDS) == 500
        spans, metrics = collector.spans(), collector.metrics()
    assert list(spans) == traces, "one trace for each request, none for health checks and upkeep"
    failed = [span.name for span in spans[traces[3]] if span.status.code == Status.STATUS_CODE_ERROR]
    assert any(name.startswith("WITH") for name in failed)
    for trace_id in traces[:3]:
        names = " ".join(span.name for span in spans[trace_id])
        for name in ("POST /v1/agents/{agent_id}/runs", "invoke_agent", "chat fake", "INSERT", "UPDATE"):
            assert name in names
    assert {line["trace_id"] for line in lines(log) if line.get("run_id")} == set(traces[:3])
    assert {"http.server.request.duration", "gen_ai.client.token.usage", "agent.streams"} <= metrics.keys()
    for words in ("assistant", "succeeded", "failed"):
        assert words in metrics["agent.runs"]
    sent = b"".join(body for bodies in collector.bodies.values() for body in bodies)
    for words in (WORDS, WORDS.replace(" ", "+"), SECRET, "not-a-real-key", key.rpartition("_")[2]):
        assert words.encode() not in sent


def test_telemetry_without_a_collector_stops_nothing(
    with_tables: URL, logs: Path, model: dict[str, str]
) -> None:
    with socket.socket() as taken:  # where nobody answers
        taken.bind(("127.0.0.1", 0))
        nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        with serving(logs / "nowhere", with_tables, **nowhere, **model) as client:
            assert ask(client, "hello").status_code == 200
