"""What traces hold: nothing that was said, or with the setting for it all of that, but no secrets."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk import environment_variables
from sqlalchemy import URL

from chassis.settings import WORKSPACE, SettingsError
from chassis.telemetry import CONTENT, HOST, PORT, TelemetrySettings
from chassis.telemetry.redaction import REDACTED, redactor
from chassis.testing.client import SSE, ask
from chassis.testing.provider import SECRET
from chassis.tests.collector import Collector, collecting
from chassis.tests.service import create_key, service, serving

PASSWORD = 'p"ä\\ss/w%rd'
ENV = {
    "OPENAI_API_KEY": "not-a-real-key",
    "DB_PASS": PASSWORD,
    "MIGRATE_DATABASE_URL": "postgresql://m:pa%40ss%2Fword@h/d",
    "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20bGFuZ2Z1c2U6bm8,x-version=4",
    "HOOK_SIGNING_SECRET": "hush-hush-hush",
    "ANTHROPIC_API_KEY": "x",  # as people write where none is needed
    "API_KEYS_REQUIRED": "True",
}
JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl-_"
AWS, GITHUB, SLACK = (
    "AKIAIOSFODNN7EXAMPLE",
    f"ghp_{'a1' * 18}",
    "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOHcbrzqgy",
)
CALLER = f"ak_{'0f' * 6}_{'0f' * 32}"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nk9a+/8=\n-----END RSA PRIVATE KEY-----"
# Text, and what of it must be gone.
SECRETS = [
    *(
        (text, text)
        for text in (ENV["OPENAI_API_KEY"], PASSWORD, "pa@ss/word", "bGFuZ2Z1c2U6bm8", "hush-hush-hush")
    ),
    *(
        (text, text)
        for text in (SECRET, "sk-ant-api03-R2D2-C3POabcdef", JWT, AWS, GITHUB, SLACK, CALLER, PEM)
    ),
    (PEM[:60], "MIIEpAIB"),
    ("Bearer abcdef12345", "abcdef12345"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("Authorization: Bearer wordsonly", "wordsonly"),
    ("https://ada:hunter2@example.com/x", "hunter2"),
    ("?password=hunter2&page=1", "hunter2"),
    ('{"client_secret": "correct \\"horse\\" battery", "page": 1}', "horse"),
    ("{'api_key': 'hunter two'}", "two"),
    ("of CUSTOMER-4711 it is known", "CUSTOMER-4711"),
]
LEFT_ALONE = [
    "Basic understanding of bearer bonds, and the authorization of it",
    "task-force-2024 asks a secretary for the key: none",
    "max_tokens=12, input_tokens: 5",
    '{"password": {"type": "string"}, "api_key": null, "token": 3}',
    "http://localhost:8000/users/ada@example.com",
]


def nested(text: str, levels: int) -> str:
    for _ in range(levels):
        text = json.dumps([text])
    return text


def unnested(text: str, levels: int) -> str:
    for _ in range(levels):
        [text] = json.loads(text)
    return text


@pytest.mark.parametrize("levels", [0, 1, 2], ids=["plain", "json", "json in json"])
def test_secrets_are_taken_out_of_texts_that_stay_what_they_are(levels: int) -> None:
    redact = redactor(ENV, [r"CUSTOMER-\d+"])
    for text, secret in SECRETS:
        redacted = redact(nested(f"before\n{text}\nafter", levels))
        assert secret not in unnested(redacted, levels).replace('\\"', '"'), text
        assert REDACTED in redacted, text
        assert "before" in redacted, text
    for text in LEFT_ALONE:
        assert redact(nested(text, levels)) == nested(text, levels)


@pytest.mark.parametrize(
    "unit",
    [
        "-eyJ",
        " eyJaaaaaa.",
        " sk-",
        "-----BEGIN PRIVATE KEY-----.",
        "://a:",
        "password:\\'\"",
        "bearer \t",
        "\\",
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    redact, text = redactor(ENV), (unit * 200_000)[:200_000]
    began = time.process_time()
    redact(text)
    # What goes through the text again from each of its letters would take minutes.
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({CONTENT: "span_only"}, f"{CONTENT} must be True or False"),
        ({PORT: "http"}, "must be a number from 1 to 65535, not 'http'"),
    ],
)
def test_wrong_settings_are_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        TelemetrySettings.from_env(env)


class Told(NamedTuple):
    """What a service told of some runs."""

    content: bool
    log: str
    collector: Collector
    key: str


WORDS = "nobody else hears this"
ARGUMENTS = json.dumps({"words": f"{WORDS} {AWS} {JWT} CUSTOMER-4711 postgresql://u:hunter2@h/d"})


@pytest.fixture(scope="module", params=[False, True], ids=["without content", "with content"])
def told(request: pytest.FixtureRequest, database: URL, logs: Path, model: dict[str, str]) -> Told:
    log, key = logs / f"told-{request.param}", create_key(database)
    settings = model | {"RUNTIME_ENV": "prd", CONTENT: str(request.param), "WEBHOOK_SECRET": "hush-hush-hush"}
    with collecting() as (collector, endpoint), serving(log, database, **settings, **endpoint) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert (
            ask(
                client, f"say {WORDS} and hush-hush-hush and not-a-real-key and {key}", params={"q": WORDS}
            ).status_code
            == 200
        )
        assert ask(client, f"call search_conversations {ARGUMENTS}", headers=SSE).status_code == 200
        assert ask(client, "fail server").status_code == 502
    return Told(request.param, log.read_text(encoding="utf-8"), collector, key)


def attributes(span: Span) -> Iterator[str]:
    def texts(value: AnyValue) -> Iterator[str]:
        yield value.string_value
        for item in value.array_value.values:
            yield from texts(item)

    for attribute in (
        *span.attributes,
        *(attribute for event in span.events for attribute in event.attributes),
    ):
        yield from texts(attribute.value)


def test_spans_have_the_names_of_the_conventions(told: Told) -> None:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/"""
    first, second, failed = told.collector.spans().values()
    operations = {"invoke_agent Assistant", "chat fake", "execute_tool search_conversations"}
    assert operations <= {span.name for span in second}
    assert {"invoke_agent Assistant", "chat fake"} <= {span.name for span in first} & {
        span.name for span in failed
    }
    values = {a.key: a.value.string_value for span in second for a in span.attributes}
    assert values["gen_ai.request.model"] == "fake"
    assert values["gen_ai.tool.name"] == "search_conversations"


def test_content_is_there_only_where_it_is_wanted_and_says_so(told: Told) -> None:
    sent = told.collector.sent()
    assert (WORDS.encode() in sent) == told.content
    warned = [line for line in map(json.loads, told.log.splitlines()) if CONTENT in line["message"]]
    assert [line["level"] for line in warned] == (["WARNING"] if told.content else [])


def test_secrets_are_in_no_trace(told: Told) -> None:
    secrets = ("hush-hush-hush", "not-a-real-key", told.key, AWS, JWT, "CUSTOMER-4711", "hunter2", SECRET)
    assert [secret for secret in secrets if secret.encode() in told.collector.sent()] == []
    found = [text for spans in told.collector.spans().values() for span in spans for text in attributes(span)]
    assert any(REDACTED in text for text in found) == told.content
    # What is JSON is still.
    messages = [json.loads(text) for text in found if text.startswith(("[", "{")) and REDACTED in text]
    assert bool(messages) == told.content


def test_service_ends_in_time_though_the_receiver_keeps_silent(
    database: URL, logs: Path, model: dict[str, str]
) -> None:
    """It takes connections and never answers; another that isn't there is in test_operations.py."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with service(logs / "silent", database, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **model) as server:
            with httpx.Client(base_url=server.address, timeout=20) as client:
                assert ask(client, "hello").status_code == 200
                server.process.send_signal(signal.SIGTERM)
            # Kubernetes waits for 35 seconds. On a quiet machine it takes 8.
            assert server.process.wait(timeout=30) in {0, -signal.SIGTERM}


def test_documentation_names_variables_that_are_read_and_attributes_that_are_sent(told: Told) -> None:
    text = WORKSPACE.joinpath("chassis/telemetry/README.md").read_text(encoding="utf-8")
    read = {CONTENT, HOST, PORT} | {name for name in vars(environment_variables) if name.startswith("OTEL_")}
    named = set(re.findall(r"\bOTEL_\w+", text))
    assert named - read == set()
    assert {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", CONTENT} <= named
    [queries] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    spans = [span for spans in told.collector.spans().values() for span in spans]
    sent = {attribute.key for span in spans for attribute in span.attributes}
    assert set(re.findall(r"attributes->>'([^']+)'", queries)) <= sent
    operations = {span.name.split()[0] for span in spans}
    assert set(re.findall(r"gen_ai.operation.name' = '(\w+)'", queries)) <= operations
