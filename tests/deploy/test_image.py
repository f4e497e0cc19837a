"""The image: the real Dockerfile is built, and what comes out is run against a real PostgreSQL, and delivered.

Not checked here, for want of the internet and an engine: the official Python base (its stand-in is the same Debian
release, see containers.py), BuildKit, and the limits that an engine sets.
"""

import json
import mmap
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cloud import emulate, shell
from tests.support.commands import UV, Outcome, run
from tests.support.containers import PYTHON, Builder, Image, open_builder, reason_against, stop
from tests.support.places import request
from tests.support.servers import (
    IN_CI,
    Database,
    Server,
    debian_server,
    free_port,
    missing,
    wait_until,
    wheel_programs,
)
from tests.support.workspaces import Workspace, cookiecutter

pytestmark = pytest.mark.cloud

# Nothing of it may be in the image, wherever it comes from.
PLANTED = f"planted-{secrets.token_hex(16)}"
# Where people and tools leave secrets.
PLACES = (
    ".env",
    "db/.env",
    "agents/.envrc",
    ".git/config",
    ".postgres/data",
    "infra/key.txt",
    "tests/key.py",
    "key.md",
)
TOOLS = "cc c++ gcc g++ clang ld as make cmake rustc cargo go git uv uvx npm curl"
# Stands for Docker in infra/deliver/build.sh, which is at a registry of this machine and not at AWS'. The emulator
# is told of the image, as AWS' registry is its own.
DOCKER = """#!/bin/sh
set -eu
what=$1
shift
case $what in
login) read -r password && [ -n "$password" ] ;;
build)
    # BuildKit's own option.
    for argument; do shift; [ "$argument" = --provenance=false ] || set -- "$@" "$argument"; done
    exec {build} "$@" ;;
push)
    {push} --digestfile "$0.digest" "$1" "docker://{registry}/agent-api:${{1##*:}}"
    type=application/vnd.docker.distribution.manifest.v2+json
    manifest=$(curl --silent --fail --header "Accept: $type" "http://{registry}/v2/agent-api/manifests/${{1##*:}}")
    aws ecr put-image --repository-name agent-api --image-tag "${{1##*:}}" --image-manifest "$manifest" \\
        --image-digest "$(cat "$0.digest")"
    aws ecr start-image-scan --repository-name agent-api --image-id "imageTag=${{1##*:}}" ;;
esac
"""
REGISTRY = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""
# Given to all files, as BuildKit does with SOURCE_DATE_EPOCH.
SAME_TIME = ("--timestamp", "1700000000")


@dataclass(frozen=True)
class Built:
    """The production image of the default answers."""

    builder: Builder
    workspace: Workspace
    image: Image

    def run(self, env: Mapping[str, str], *command: str, check: bool = True) -> Outcome:
        """Run a command in a container of its own."""
        return run(*self.image.command(env, *command), check=check, timeout=120)

    @contextmanager
    def start(self, env: Mapping[str, str]) -> Iterator[tuple[int, psutil.Process, subprocess.Popen[str]]]:
        """Start the service in a container, and give its port, its first process and what waits for that."""
        port = free_port()
        command = self.image.command({**env, "UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(port)})
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_until(lambda: process.poll() is not None or psutil.Process(process.pid).children(), 10)
            (first,) = psutil.Process(process.pid).children()
            yield port, first, process
        finally:
            stop(process)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if reason := reason_against():
        (pytest.fail if IN_CI else pytest.skip)(
            f"{reason}. Not checked: that the Dockerfile builds; what is in the image, and that it migrates and serves."
        )
    output = tmp_path_factory.mktemp("image")
    answers = {"install": "no", "init_git": "no", "python_version": PYTHON}
    outcome = cookiecutter(output, answers)
    assert outcome.code == 0, outcome.output
    workspace = Workspace(output / "agent-api")
    for place in PLACES:
        path = workspace.path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"KEY={PLANTED}\n", encoding="utf-8")
    with open_builder(tmp_path_factory.mktemp("containers"), UV, workspace.path) as builder:
        builder.lock(workspace.path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", PLANTED)
            builder.build(workspace.path, "agent-api", *SAME_TIME)
        yield Built(builder, workspace, builder.mount("agent-api"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with debian_server(programs=wheel_programs()) as server:
        yield server


@pytest.fixture
def database(server: Server) -> Database:
    return server.new_database()


def production(database: Database) -> dict[str, str]:
    return {**database.env, "RUNTIME_ENV": "prd", "DB_SSLMODE": "disable", "OPENAI_API_KEY": PLANTED}


def test_it_says_how_to_run_it(built: Built) -> None:
    config = built.image.config
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "scripts/healthcheck.py"]
    assert "RUNTIME_ENV=prd" in config["Env"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == ("Agent API", "MIT")


def test_nothing_is_in_it_that_production_does_not_need(built: Built) -> None:
    assert built.run({}, "sh", "-c", f"for tool in {TOOLS}; do command -v $tool || true; done").output == ""
    names = "import importlib.metadata as m; print('\\n'.join(d.name for d in m.distributions()))"
    installed = {
        re.sub(r"[-_.]+", "-", name.lower()) for name in built.run({}, "python", "-c", names).output.split()
    }
    export = ("export", "--frozen", "--no-dev", "--no-hashes", "--no-annotate", "--no-header", "--quiet")
    locked = run(UV, *export, cwd=built.workspace.path).output
    assert installed <= set(re.findall(r"^([\w-]+)==", locked, re.MULTILINE))
    assert {"fastapi", "alembic"} <= installed
    assert {path.name for path in (built.image.root / "app").iterdir()} == {
        "agents",
        "api",
        "chassis",
        "db",
        "scripts",
        "pyproject.toml",
        "uv.lock",
    }
    assert not {"evals", "testing", "tests"} & {
        path.name for path in (built.image.root / "app/chassis").iterdir()
    }


def test_its_user_can_change_nothing_in_it(built: Built) -> None:
    """With a file system that could be written to, too: here it's buildah that runs the container."""
    find = "id -u; find /app /opt /usr /etc -writable ! -type l 2>/dev/null || true"
    run_in = ("run", "--isolation", "chroot", built.image.container, "--", "sh", "-c", find)
    assert built.builder.buildah(*run_in) == "10001"


def test_bytecode_is_complete_and_bound_to_no_time(built: Built) -> None:
    root = built.image.root
    (packages,) = (root / "opt/venv/lib").glob("python*/site-packages")
    for folder in (packages, root / "app"):
        sources = [path for path in folder.rglob("*.py") if "scripts" not in path.parts]
        missing = []
        for source in sources:
            compiled = next(source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc"), None)
            # https://peps.python.org/pep-0552/: 1 is a hash that isn't compared.
            if not compiled or compiled.read_bytes()[4:8] != b"\x01\0\0\0":
                missing.append(source)
        assert len(missing) < len(sources) / 1000, missing
        assert len(sources) > 50


def test_no_secret_is_in_a_layer(built: Built, tmp_path: Path) -> None:
    layers = built.builder.unpack("agent-api", tmp_path / "layers")
    assert files_with(b'name = "agent-api"', layers), "the search finds nothing"
    assert not files_with(PLANTED.encode(), layers)


def files_with(text: bytes, folder: Path) -> list[str]:
    found = []
    for file in folder.iterdir():
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(text) >= 0:
                found.append(file.name)
    return found


def test_two_builds_have_the_same_layers(built: Built) -> None:
    built.builder.build(built.workspace.path, "again", "--no-cache", *SAME_TIME)
    assert built.builder.layers("again") == built.builder.layers("agent-api")


def test_it_migrates_a_database_outside_of_it(built: Built, database: Database) -> None:
    built.run(production(database), "alembic", "-c", "db/alembic.ini", "upgrade", "head")
    assert database.rows("SELECT count(*) FROM alembic_version") == [(1,)]


def test_it_migrates_serves_and_stops_when_told_to(built: Built, database: Database) -> None:
    env = production(database)
    with built.start({**env, "MIGRATE_DB": "True"}) as (port, first, process):
        wait_until(lambda: process.poll() is not None or request(port, "GET", "/ready") == 200, 60)
        assert request(port, "GET", "/ready") == 200, process.communicate()[0]
        assert first.cmdline()[1].endswith("/uvicorn")
        assert (first.uids().real, first.gids().real) == (10001, 10001)
        made = built.run(env, "python", "-m", "chassis", "keys", "create", "smoke").output
        key = re.search(r"\bak_\S+", made)
        assert key, made
        assert request(port, "GET", "/v1/agents", key=key[0]) == 200
        assert request(port, "GET", "/v1/agents") == 401
        health = built.image.config["Healthcheck"]["Test"][1:]
        built.run({"UVICORN_PORT": str(port)}, *health)
        first.send_signal(getattr(signal, built.image.config["StopSignal"]))
        printed, _ = process.communicate(timeout=30)
        assert process.returncode in (0, 143, -signal.SIGTERM), printed
        assert PLANTED not in printed
        assert key[0] not in printed
    assert built.run({"UVICORN_PORT": str(port)}, *health, check=False).code == 1


def test_the_tasks_of_aws_run_in_it(built: Built, written: dict[str, Path]) -> None:
    """Command, user, variables and secrets as AWS would give them, and like there only /tmp can be written to."""
    template = json.loads((written["new"] / "prd-agent-api-tasks.template.json").read_text(encoding="utf-8"))
    tasks = {
        resource["Properties"]["Family"]: resource["Properties"]["ContainerDefinitions"][0]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
    }
    with debian_server(programs=wheel_programs()) as server:
        server.execute("CREATE DATABASE agent_api")
        logins = {
            "MasterUserSecret": (server.user, server.password or ""),
            "RefMigrator": ("migrator", "m"),
            "RefApp": ("app", "a"),
        }
        here = {
            "DB_HOST": server.host,
            "DB_PORT": str(server.port),
            "DB_SSLMODE": "disable",
            "DB_SSLROOTCERT": "",
        }
        for name in ("roles", "migrate", "roles"):
            task = tasks[f"prd-agent-api-{name}"]
            assert task["User"] == built.image.config["User"]
            assert "EntryPoint" not in task
            env = {item["Name"]: item["Value"] for item in task["Environment"]}
            env |= {item["Name"]: of_secret(item, logins) for item in task["Secrets"]}
            built.run({**env, **here}, *built.image.config["Entrypoint"], *task["Command"])
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert server.rows(owners, "agent_api") == [("migrator",)]


def of_secret(item: dict[str, Any], logins: dict[str, tuple[str, str]]) -> str:
    """What Secrets Manager would have for a variable: the part of the login that the definition points to."""
    source = json.dumps(item["ValueFrom"])
    (login,) = [login for name, login in logins.items() if name in source]
    return login[":username:" not in source]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Run Debian's registry, and give its address."""
    if not (program := shutil.which("docker-registry")):
        missing("docker-registry")
    assert program
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "registry.yml"
    config.write_text(REGISTRY.format(folder=tmp_path / "registry", address=address))
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        curl = ("curl", "--silent", "--fail", f"http://{address}/v2/")
        wait_until(lambda: subprocess.run(curl, capture_output=True, check=False).returncode == 0, 20)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_what_is_delivered_is_called_by_its_digest(
    built: Built, infra: Path, written: dict[str, Path], registry: str, tmp_path: Path
) -> None:
    """infra/deliver/build.sh builds on the bases that it is told, and prints what the registry really has."""
    builder, commit = built.builder, "a" * 40
    build = shlex.join(builder.build_options())
    push = shlex.join(builder.command("push", "--quiet", "--tls-verify=false"))
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(build=build, push=push, registry=registry))
    docker.chmod(0o755)
    with emulate(infra, written["new"], tmp_path) as env:
        template = written["new"] / "agent-api-registry.template.json"
        create = (
            f"cloudformation create-stack --stack-name agent-api-registry --template-body file://{template}"
        )
        shell(f"aws {create}", env)
        env |= {"PATH": f"{docker.parent}{os.pathsep}{env['PATH']}", "TMPDIR": builder.env["TMPDIR"]}
        env |= {"PYTHON_IMAGE": "localhost/python", "UV_IMAGE": "localhost/uv"}
        script = built.workspace.path / "infra/deliver/build.sh"
        name = run(script, commit, env=env, timeout=600).output.splitlines()[-1]
    digest = name.partition("@")[2]
    pulled = builder.buildah(
        "pull", "--quiet", "--tls-verify=false", f"docker://{registry}/agent-api@{digest}"
    )
    labels = json.loads(builder.buildah("inspect", "--type", "image", pulled))["Docker"]["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.title"] == "Agent API"


def test_the_development_image_has_a_shell_and_all_packages(built: Built, database: Database) -> None:
    workspace = built.workspace.path
    built.builder.build(workspace, "dev", "--target", "dev")
    container = built.builder.mount("dev").container
    line = "alembic -c db/alembic.ini upgrade head && pytest --version && id -u && which uv"
    env = [f"--env={name}={value}" for name, value in database.env.items()]
    options = ("--isolation", "chroot", f"--volume={workspace}:/app:ro", *env)
    printed = built.builder.buildah("run", *options, container, "--", "zsh", "-c", line)
    assert printed.split()[-2:] == ["1000", "/usr/local/bin/uv"]
    assert database.rows("SELECT count(*) FROM alembic_version") == [(1,)]
