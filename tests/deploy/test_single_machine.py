"""deploy/compose: production on a single machine, as far as it goes without Docker."""

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from tests.support.commands import TOOLS, run
from tests.support.places import (
    COMPOSE,
    KUBERNETES,
    OF_UVICORN,
    ONE,
    graceful_seconds,
    make_key,
    names_of,
    request,
    served,
    settings_told,
)
from tests.support.servers import debian_server, free_port, http_server, wait_until, wheel_programs
from tests.support.workspaces import Workspace


def test_checkers_of_other_programs_find_nothing(places: Workspace) -> None:
    folder = places.path / COMPOSE
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", folder / "compose.yaml")
    for script in (folder / "backup.sh", folder / "restore.sh", places.path / KUBERNETES / "deploy.sh"):
        run(TOOLS / "shellcheck", script)
        assert os.access(script, os.X_OK)


def test_only_the_proxy_is_reached_and_nothing_has_a_right_too_many(places: Workspace) -> None:
    compose = yaml.safe_load(places.read(f"{COMPOSE}/compose.yaml"))
    services, networks = compose["services"], compose["networks"]
    development = yaml.safe_load(places.read("compose.yaml"))
    assert compose["name"] == names_of(places)["Names"].of("prd").container != development["name"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert all(networks[name]["internal"] for name in services["db"]["networks"])
    assert not set(services["proxy"]["networks"]) & set(services["db"]["networks"])
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert set(service.get("cap_add", [])) <= {"NET_BIND_SERVICE"}, name
        assert "privileged" not in service, name
    app, database = services["app"], services["db"]
    assert app["user"] == "10001:10001"
    assert int(app["stop_grace_period"].removesuffix("s")) > graceful_seconds(places)
    assert app["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert app["environment"]["RUNTIME_ENV"] == "prd"
    assert app["environment"]["MIGRATE_DB"] == "True"
    assert set(app["environment"]) <= settings_told(places) | OF_UVICORN
    assert app["environment"]["DB_DATABASE"] == database["environment"]["POSTGRES_DB"]
    assert app["environment"]["DB_DATABASE"] == names_of(places)["DATABASE"]
    (image,) = [service["image"] for name, service in development["services"].items() if "image" in service]
    assert database["image"] == image, "development and production have one PostgreSQL"


def test_what_must_be_set_is_asked_for_and_none_of_it_is_in_git(places: Workspace) -> None:
    folder = places.path / COMPOSE
    text = (folder / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == set(re.findall(r"\$\{(\w+)", text)) == {"DOMAIN", "IMAGE", "DB_PASS"}
    example = dict(re.findall(r"^(\w+)=(.*)$", (folder / "example.env").read_text(), re.MULTILINE))
    assert set(example) == asked | {names_of(places)["MODEL_KEY"]}
    assert set(example.values()) == {""}
    run("git", "init", "--quiet", cwd=places.path)
    ignored = [f"{COMPOSE}/.env", f"{COMPOSE}/backups/a.dump", f"{KUBERNETES}/app.env"]
    assert run("git", "check-ignore", *ignored, cwd=places.path).output.split() == ignored
    unknown = run("git", "ls-files", "--others", "--exclude-standard", cwd=places.path).output.split()
    assert {"example.env", f"{COMPOSE}/example.env"} <= set(unknown)
    shutil.rmtree(places.path / ".git")


class Upstream(BaseHTTPRequestHandler):
    """Stands where the app would: answers as it does, as far as the proxy has to do with it."""

    protocol_version = "HTTP/1.1"
    seen: threading.Event

    def do_GET(self) -> None:
        self._begin("text/event-stream", [("Connection", "close"), ("Referrer-Policy", "same-origin")])
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        assert self.seen.wait(20)
        self.wfile.write(b"data: second\n\n")

    def do_POST(self) -> None:
        length = len(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"length": length, "proto": self.headers["X-Forwarded-Proto"]}).encode()
        self._begin("application/json", [("Content-Length", str(len(body)))])
        self.wfile.write(body)

    def _begin(self, kind: str, headers: list[tuple[str, str]]) -> None:
        self.send_response(200)
        for name, value in [("Content-Type", kind), *headers]:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream(port: int) -> Iterator[threading.Event]:
    seen = threading.Event()
    handler = type("Handler", (Upstream,), {"seen": seen})
    with http_server(handler, port):
        try:
            yield seen
        finally:
            seen.set()


@pytest.fixture
def proxy(places: Workspace, programs: Path, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A Caddy with the workspace's Caddyfile, without TLS; its port, and the one that it expects the app at."""
    port, app = free_port(), free_port()
    text = places.read(f"{COMPOSE}/Caddyfile")
    assert text.count("app:8000") == 1
    file = tmp_path / "Caddyfile"
    file.write_text(text.replace("app:8000", f"127.0.0.1:{app}"), encoding="utf-8")
    env = {**os.environ, **caddy_folders(tmp_path), "DOMAIN": f"http://127.0.0.1:{port}"}
    command: list[str | Path] = [programs / "caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log) as caddy,
    ):
        try:
            wait_until(lambda: b"serving initial configuration" in (tmp_path / "log").read_bytes(), 20)
            yield port, app
        finally:
            caddy.terminate()


def caddy_folders(folder: Path) -> dict[str, str]:
    return {"XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}


@ONE
@pytest.mark.cloud
def test_events_come_through_the_proxy_as_they_are_sent(proxy: tuple[int, int]) -> None:
    port, app = proxy
    with upstream(app) as seen:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", "/v1/runs/1/events")
        answer = client.getresponse()
        assert answer.readline() == b"data: first\n"
        seen.set()
        assert answer.read() == b"\ndata: second\n\n"
        headers = {name.lower(): value for name, value in answer.getheaders()}
        assert "server" not in headers
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin", "what the app says of itself counts"
        assert answer.headers.get_all("Referrer-Policy") == ["same-origin"]


@ONE
@pytest.mark.cloud
def test_requests_wait_for_an_app_that_starts(proxy: tuple[int, int]) -> None:
    port, app = proxy
    outcomes: list[tuple[int, bytes]] = []

    def post(size: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("POST", "/v1/agents/assistant/runs", b"x" * size)
        answer = client.getresponse()
        outcomes.append((answer.status, answer.read()))

    clients = [threading.Thread(target=post, args=[5]) for _ in range(5)]
    for client in clients:
        client.start()
    time.sleep(2)
    assert outcomes == []
    with upstream(app):
        for client in clients:
            client.join()
        post(1_000_000)
        post(10_000_001)
    *waited, largest, too_large = outcomes
    assert waited == [(200, b'{"length": 5, "proto": "http"}')] * 5
    assert largest == (200, b'{"length": 1000000, "proto": "http"}')
    assert too_large[0] == 413


@ONE
@pytest.mark.cloud
def test_an_update_lets_requests_wait(
    places: Workspace, workspace: Workspace, proxy: tuple[int, int]
) -> None:
    """The container is stopped and another one started, as `docker compose up` does it, under steady traffic."""
    port, app = proxy
    over = threading.Event()
    outcomes: list[tuple[int, float]] = []

    def call() -> None:
        while not over.is_set():
            began = time.monotonic()
            status = request(port, "POST", "/v1/agents/assistant/runs", b'{"input": "What time is it?"}')
            outcomes.append((status, time.monotonic() - began))

    callers = [threading.Thread(target=call) for _ in range(4)]
    with served(workspace, app, {"MIGRATE_DB": "True"}):
        for caller in callers:
            caller.start()
        time.sleep(1)
    with served(workspace, app, {"MIGRATE_DB": "True"}):
        time.sleep(1)
        over.set()
        for caller in callers:
            caller.join()
    # When it stops, uvicorn closes connections whose request it hasn't read yet: of each caller one at most.
    failed = [(status, seconds) for status, seconds in outcomes if status != 200]
    assert len(failed) <= len(callers), failed
    assert {status for status, _ in failed} <= {502}, failed
    assert max(seconds for _, seconds in outcomes) > 0.5, "no request had to wait, so nothing was shown"
    print(f"\nan update: {len(outcomes)} requests, the longest waited {max(s for _, s in outcomes):.1f} s")  # noqa: T201 -- a figure to keep an eye on


@ONE
@pytest.mark.cloud
def test_the_app_starts_as_a_single_machine_is_configured(
    places: Workspace, workspace: Workspace, tmp_path: Path
) -> None:
    service = yaml.safe_load(places.read(f"{COMPOSE}/compose.yaml"))["services"]["app"]
    with debian_server(programs=wheel_programs()) as server:
        database = server.new_database()
        # What database.sql does, see tests/safety/test_backup.py.
        server.execute(f"CREATE ROLE app LOGIN PASSWORD 'apps'; ALTER DATABASE {database.name} OWNER TO app")
        database.execute("CREATE EXTENSION vector")
        here = {**database.env, "DB_PASS": "apps", "OPENAI_API_KEY": "x"}
        here |= {name: service["environment"][name] for name in ("RUNTIME_ENV", "DB_USER")}
        with served(workspace, port := free_port(), {**service["environment"], **here}):
            key = make_key(workspace, {**service["environment"], **here})
            assert request(port, "GET", "/v1/agents") == 401
            assert request(port, "GET", "/v1/agents", key=key) == 200


@ONE
@pytest.mark.cloud
def test_the_proxy_gets_a_certificate_for_the_domain(
    places: Workspace, programs: Path, tmp_path: Path
) -> None:
    file = places.path / COMPOSE / "Caddyfile"
    env = {"DOMAIN": "agent.example.com", **caddy_folders(tmp_path)}
    config = ("--config", str(file), "--adapter", "caddyfile")
    assert "Valid configuration" in run(programs / "caddy", "validate", *config, env=env).output
    assert run(programs / "caddy", "fmt", file).output == file.read_text(encoding="utf-8")
    adapted = json.loads(run(programs / "caddy", "adapt", *config, env=env).output.splitlines()[-1])
    assert adapted["admin"] == {"disabled": True}
    (server,) = adapted["apps"]["http"]["servers"].values()
    assert server["listen"] == [":443"]
    assert "automatic_https" not in server
    assert server["routes"][0]["match"] == [{"host": ["agent.example.com"]}]
