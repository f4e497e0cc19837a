"""What Prometheus fetches, and from where."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

from chassis.settings import WORKSPACE, SettingsError
from chassis.telemetry import HOST, PORT, TelemetrySettings
from chassis.testing.client import RUNS, SSE, ask, wait_for
from chassis.tests.collector import collecting
from chassis.tests.service import create_key, serving

PRICED = "openai-chat:gpt-4o-mini"
# What Prometheus itself knows of a query's words.
FUNCTIONS = {"sum", "max", "by", "rate", "histogram_quantile"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int) -> dict[str, Metric]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20)
    assert answer.status_code == 200
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels among theirs."""
    return sum(
        found.value
        for family in families.values()
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


class Fetched(NamedTuple):
    families: dict[str, Metric]
    key: str


@pytest.fixture(scope="module")
def fetched(database: URL, logs: Path, model: dict[str, str]) -> Iterator[Fetched]:
    """The metrics of a service of which Prometheus fetches them, while traces go to a collector."""
    key, port = create_key(database), free_port()
    settings = model | {"RUNTIME_ENV": "prd", "AGENT_CONCURRENT_RUNS": "1", PORT: str(port)}
    # A model with a price that is known.
    settings |= {"AGENT_BACKGROUND": "True", "AGENT_RESUME_SECONDS": "0.3", "AGENT_MODELS": PRICED}
    with (
        collecting() as (collector, endpoint),
        serving(logs / "fetched", database, **settings, **endpoint) as client,
    ):
        client.headers["Authorization"] = f"Bearer {key}"
        assert client.get("/metrics").status_code == 404
        run = ask(client, "hello").json()
        assert client.post(f"/v1/runs/{run['run_id']}/feedback", json={"thumb": "up"}).is_success
        assert ask(client, "hello", headers=SSE).status_code == 200
        assert ask(client, "call search_conversations {}").status_code == 200
        assert ask(client, "fail server").status_code == 502
        assert ask(client, "hello", headers={"X-Model": PRICED}).status_code == 200
        with client.stream("POST", RUNS, json={"input": "slow 500 0.2 x"}, headers=SSE) as stream:
            assert next(stream.iter_lines())
            assert ask(client, "one too many").status_code == 503
            assert value(fetch(port), "agent_runs_underway", agent="assistant") == 1
            wait_for(lambda: value(fetch(port), "agent_run_first_words_seconds_count") == 2, 60)
        wait_for(lambda: value(fetch(port), "agent_runs_total") == 6, 60)
        yield Fetched(fetch(port), key)
    assert collector.spans()


def test_numbers_one_needs_on_call(fetched: Fetched) -> None:
    families, _ = fetched
    who = {"agent": "assistant", "model": "openai:fake"}
    assert value(families, "agent_runs_total", status="succeeded", **who) == 3
    assert value(families, "agent_runs_total", status="failed", **who) == 1
    assert value(families, "agent_run_duration_seconds_count", **who) == 5
    assert value(families, "agent_run_first_words_seconds_count", **who) == 2
    assert value(families, "agent_runs_underway") == 0
    assert value(families, "agent_runs_refused_total", agent="assistant") == 1
    assert value(families, "agent_tokens_total", direction="input", **who) > 0
    assert value(families, "agent_feedback_total", agent="assistant", thumb="up") == 1
    assert "agent_runs_queued" in families
    assert value(families, "agent_cost_USD_total", agent="assistant", model="openai:gpt-4o-mini") > 0
    # OpenTelemetry's own, of each call of a model and each request.
    assert value(families, "gen_ai_client_token_usage_count", gen_ai_token_type="input") >= 4  # noqa: S106
    assert value(families, "gen_ai_client_operation_time_to_first_chunk_seconds_count") >= 1
    assert value(families, "http_server_request_duration_seconds_count", http_response_status_code="503") == 1
    assert value(families, "process_resident_memory_bytes") > 0


def test_buckets_tell_seconds_apart(fetched: Fetched) -> None:
    bounds = {
        float(sample.labels["le"])
        for sample in fetched.families["agent_run_first_words_seconds"].samples
        if "le" in sample.labels
    }
    assert len([bound for bound in bounds if bound < 5]) > 5
    assert max(bounds - {float("inf")}) > 120


def test_labels_name_nobody_and_are_few(fetched: Fetched) -> None:
    samples = [sample for family in fetched.families.values() for sample in family.samples]
    values = {text for sample in samples for text in sample.labels.values()}
    key_id = fetched.key.split("_")[1]
    assert [text for text in values if key_id in text or "hello" in text] == []
    assert len(samples) < 2000


def test_a_port_that_is_taken_is_named(database: URL, logs: Path, model: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(AssertionError, match=rf"nothing can listen on 127.0.0.1:{port}"),
            serving(logs / "taken", database, **{HOST: "127.0.0.1", PORT: port}),
        ):
            pass


def test_one_process_tells_of_itself_alone() -> None:
    with pytest.raises(SettingsError, match="WEB_CONCURRENCY=4 asks for more"):
        TelemetrySettings.from_env({PORT: "9464", "WEB_CONCURRENCY": "4"})
    found = TelemetrySettings.from_env({PORT: "9464"})
    assert (found.host, found.port) == ("localhost", 9464), "nobody else, unless a host is set"


def test_queries_of_the_documentation_name_what_is_there(fetched: Fetched) -> None:
    text = (
        WORKSPACE.joinpath("chassis/telemetry/README.md")
        .read_text(encoding="utf-8")
        .partition("## Prometheus")[2]
    )
    [alerts] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    queries = [
        found
        for row in re.findall(r"^\| (?!Panel)[^|]+\| (`.+`) \|$", text, re.MULTILINE)
        for found in re.findall(r"`(.+?)`", row)
    ]
    queries += re.findall(r"expr: (?:>-)?((?:.|\n {10})+)", alerts)
    assert len(queries) >= 15
    names = {
        sample.name: sample.labels.keys() for family in fetched.families.values() for sample in family.samples
    }
    labels = set[str]().union(*names.values())
    for query in queries:
        bare = re.sub(r'\[\w+\]|"[^"]*"', "", query)
        words = set(re.findall(r"\b[a-zA-Z_]\w+\b", bare)) - FUNCTIONS
        assert words & names.keys(), query
        assert words <= names.keys() | labels, query
