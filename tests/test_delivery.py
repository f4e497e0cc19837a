"""infra/deliver: the scripts with the real AWS CLI, in an emulator of AWS in which prd was deployed.

What isn't real: containers don't run, and end with the exit code that the test says (see tests/cloud.py); the engine
that builds images is a program of this test's that puts a manifest into the emulator's registry.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cloud import IMAGE, in_infra, shell
from tests.conftest import TOOLS, Outcome, Workspace, run

pytest_plugins = ["tests.cloud"]
pytestmark = pytest.mark.cloud

NEW = IMAGE.replace("0" * 64, "1" * 64)
KEY = "ak_" + "s3cret" * 12

# Stands for Docker. "build" keeps the tag, "push" puts an image of that tag into the registry.
DOCKER = """#!/bin/sh
set -eu
echo "docker $*" >> "$DOCKER_LOG"
if [ "$1" = login ]; then read -r password; [ -n "$password" ]; fi
if [ "$1" = push ]; then
    manifest='{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "config": {}}'
    aws ecr put-image --repository-name agent-api --image-tag "${2##*:}" --image-manifest "$manifest" >/dev/null
fi
"""


class Account:
    """prd in the emulator, and the scripts that deliver to it."""

    def __init__(self, infra: Path, env: dict[str, str], folder: Path) -> None:
        self.infra = infra
        self.env = {**env, "SMOKE_PAUSE": "0.1"}
        self._exit_code = folder / "exit_code"
        transition = {"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1}}
        self.tell("state-manager/set-transition", transition)

    def tell(self, path: str, what: object) -> None:
        """Tell the emulator how to behave."""
        url = f"{self.env['AWS_ENDPOINT_URL']}/moto-api/{path}"
        run("curl", "--silent", "--fail", "--json", json.dumps(what), url)

    def migrations_end_with(self, code: int) -> None:
        self._exit_code.write_text(str(code))

    def script(self, name: str, *arguments: str, **env: str) -> Outcome:
        return run(
            self.infra / "deliver" / name, *arguments, env={**self.env, **env}, check=False, timeout=120
        )

    def ask(self, command: str) -> str:
        return shell(f"aws {command} --output text", self.env).output.strip()

    def served(self) -> str:
        """The image that the service runs, by its task definition."""
        task = self.ask(
            "ecs describe-services --cluster prd-agent-cluster --services prd-agent-api"
            " --query services[0].taskDefinition"
        )
        return self.image(task)

    def image(self, task: str) -> str:
        query = "taskDefinition.containerDefinitions[0].image"
        return self.ask(f"ecs describe-task-definition --task-definition {task} --query {query}")

    def tasks_run(self) -> list[str]:
        """The images of the tasks that ran, each by the definition that it ran with."""
        arns = self.ask("ecs list-tasks --cluster prd-agent-cluster --query taskArns").split()
        if arns in ([], ["None"]):
            return []
        query = "tasks[].taskDefinitionArn"
        found = self.ask(
            f"ecs describe-tasks --cluster prd-agent-cluster --tasks {' '.join(arns)} --query {query}"
        )
        return [f"{task.rpartition('/')[2].partition(':')[0]} {self.image(task)}" for task in found.split()]


@pytest.fixture
def account(infra: Path, emulator: dict[str, str], tmp_path: Path) -> Account:
    return Account(infra, emulator, tmp_path)


@dataclass
class Service:
    """What the smoke test meets: answers by path, or by path and key."""

    answers: dict[str, int] = field(default_factory=lambda: {"/ready": 200, "/v1/agents": 401})
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = " ".join(filter(None, (self.path, self.headers.get("Authorization"))))
            found.asked.append(asked)
            self.send_response(found.answers.get(asked, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()


def test_a_delivery_migrates_then_rolls_then_asks(account: Account, service: Service) -> None:
    service.answers[f"/v1/agents Bearer {KEY}"] = 200
    assert account.served() == IMAGE
    outcome = account.script("deliver.sh", "prd", NEW, service.url, SMOKE_KEY=KEY)
    assert outcome.code == 0, outcome.output
    steps = [outcome.output.index(step) for step in ("Migrated.", f"prd-agent-api: {IMAGE} -> {NEW}", "ok  ")]
    assert steps == sorted(steps)
    assert account.served() == NEW
    assert account.tasks_run() == [f"prd-agent-api-migrate {NEW}"]
    assert service.asked == ["/ready", "/v1/agents", f"/v1/agents Bearer {KEY}"]
    assert KEY not in outcome.output

    again = account.script("deliver.sh", "prd", NEW, service.url)
    assert again.code == 0, again.output
    assert "prd-agent-api has this image already." in again.output


def test_a_failing_migration_stops_the_delivery(account: Account, service: Service) -> None:
    account.migrations_end_with(255)
    outcome = account.script("deliver.sh", "prd", NEW, service.url)
    assert outcome.code == 1
    assert "The migration failed: STOPPED 255. The service is as it was." in outcome.output
    assert account.served() == IMAGE
    assert account.tasks_run() == [f"prd-agent-api-migrate {NEW}"]
    assert service.asked == []


@pytest.mark.parametrize("broken", [{"/ready": 503}, {"/v1/agents": 200}, {"/v1/agents": 500}])
def test_a_failing_smoke_test_rolls_back(account: Account, service: Service, broken: dict[str, int]) -> None:
    service.answers |= broken
    outcome = account.script("deliver.sh", "prd", NEW, service.url)
    assert outcome.code == 1, outcome.output
    assert f"prd-agent-api: {IMAGE} -> {NEW}" in outcome.output
    (path, status), *_ = broken.items()
    assert f"{path} answers {status}, not" in outcome.output
    assert f"Rolling back.\nprd-agent-api: {NEW} -> {IMAGE}" in outcome.output
    assert account.served() == IMAGE
    # Only the service goes back. The database stays where the migration brought it.
    assert account.tasks_run() == [f"prd-agent-api-migrate {NEW}"]


def test_a_service_that_knows_the_key_no_more_fails_the_smoke_test(
    account: Account, service: Service
) -> None:
    outcome = account.script("smoke.sh", service.url, SMOKE_KEY=KEY)
    assert outcome.code == 1
    assert "/v1/agents answers 404, not 200." in outcome.output
    assert KEY not in outcome.output


def test_what_cannot_be_done_is_said(account: Account) -> None:
    outcome = account.script("deliver.sh", "prd", NEW)
    assert (outcome.code, outcome.output) == (2, "usage: deliver.sh ENVIRONMENT IMAGE URL\n")
    outcome = account.script("roll.sh", "tst", NEW)
    assert outcome.code != 0
    assert "tst-agent-api" in outcome.output


@pytest.fixture
def registry(account: Account, written: dict[str, Path], tmp_path: Path) -> Account:
    """The account with the registry, and Docker's stand-in on PATH."""
    template = written["new"] / "agent-api-registry.template.json"
    account.ask(
        f"cloudformation create-stack --stack-name agent-api-registry --template-body file://{template}"
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    account.env["PATH"] = f"{programs}:{account.env['PATH']}"
    account.env["DOCKER_LOG"] = str(tmp_path / "docker.log")
    return account


def test_an_image_is_built_once_scanned_and_named_by_its_digest(registry: Account, tmp_path: Path) -> None:
    # Without a Docker engine: the names of the scan's findings are moto's own.
    commit = "c" * 40
    outcome = registry.script("build.sh", commit)
    assert outcome.code == 0, outcome.output
    digest = registry.ask(
        f"ecr describe-images --repository-name agent-api --image-ids imageTag={commit}"
        " --query imageDetails[0].imageDigest"
    )
    name = outcome.output.splitlines()[-1]
    assert name.endswith(f"/agent-api@{digest}")
    login, build, push = (tmp_path / "docker.log").read_text().splitlines()
    assert login == f"docker login --username AWS --password-stdin {name.partition('/')[0]}"
    assert build.endswith(str(registry.infra / "deliver/../.."))
    assert "--provenance=false" in build
    assert push == f"docker push {name.partition('@')[0]}:{commit}"

    again = registry.script("build.sh", commit)
    assert again.output.splitlines() == [name], "the tag is there: nothing is built again"


def test_a_critical_finding_stops_the_delivery_unless_it_is_accepted(
    registry: Account, infra: Path, tmp_path: Path
) -> None:
    commit = "d" * 40
    image = registry.script("build.sh", commit).output.splitlines()[-1]
    findings = [
        {"name": name, "severity": severity}
        for name, severity in (("CVE-1", "HIGH"), ("CVE-2", "CRITICAL"), ("CVE-3", "CRITICAL"))
    ]
    scan = {
        "imageScanFindings": {"findings": findings},
        "repositoryName": "agent-api",
        "imageId": {"imageDigest": image.partition("@")[2]},
        "imageScanStatus": {"status": "COMPLETE"},
    }
    results = {"results": [scan, scan], "region": registry.env["AWS_DEFAULT_REGION"]}
    registry.tell("static/ecr/scan-finding-results", results)
    outcome = registry.script("build.sh", commit)
    assert outcome.code == 1, outcome.output
    assert "The scan found CVE-2." in outcome.output
    assert "The scan found CVE-3." in outcome.output
    assert "CVE-1" not in outcome.output
    assert image not in outcome.output

    file = infra / "deliver/accepted-findings.txt"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(f"{before}CVE-2 Never called.\nCVE-3\n", encoding="utf-8")
        outcome = registry.script("build.sh", commit)
        assert "CVE-2" not in outcome.output
        assert "The scan found CVE-3." in outcome.output, "a finding was accepted without a reason"
        file.write_text(f"{before}CVE-2 Never called.\nCVE-3 Nor this.\n", encoding="utf-8")
        assert registry.script("build.sh", commit).output.splitlines()[-1] == image
    finally:
        file.write_text(before, encoding="utf-8")


def test_the_roles_of_the_workflow(infra: Path, account: Account) -> None:
    template = infra / "delivery.yaml"
    in_infra(infra, "cfn-lint", "--non-zero-exit-code", "informational", "--", template)
    account.ask(
        f"cloudformation create-stack --stack-name agent-api-delivery --template-body file://{template}"
        " --parameters ParameterKey=Repository,ParameterValue=example/agent-api"
        " --capabilities CAPABILITY_NAMED_IAM"
    )
    subjects = {
        "agent-api-push": "ref:refs/heads/main",
        "stg-agent-api-deliver": "environment:stg",
        "prd-agent-api-deliver": "environment:prd",
    }
    for name, subject in subjects.items():
        role = json.loads(
            shell(
                f"aws iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument", account.env
            ).output
        )
        (statement,) = role["Statement"]
        assert statement["Condition"]["StringEquals"] == {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:example/agent-api:{subject}",
        }
        (policy,) = account.ask(f"iam list-role-policies --role-name {name} --query PolicyNames").split()
        document = shell(
            f"aws iam get-role-policy --role-name {name} --policy-name {policy} --query PolicyDocument",
            account.env,
        ).output
        other = "stg-" if name.startswith("prd-") else "prd-"
        assert other not in document, "a role reaches into another environment"
        for statement in json.loads(document)["Statement"]:
            assert "*" not in "".join(statement["Action"]), "a role may do more than is listed"


def test_shellcheck_finds_nothing(bake: Callable[..., Workspace]) -> None:
    for answers in ({}, {"project_slug": "a" * 40}):
        scripts = sorted((bake(**answers).path / "infra/deliver").glob("*.sh"))
        assert len(scripts) == 6
        run(TOOLS / "shellcheck", "--external-sources", *scripts, cwd=scripts[0].parent)
