"""infra/deliver: the scripts with the real AWS CLI, in an emulator of AWS in which prd was deployed.

What isn't real: containers don't run, and end with the exit code that the test says (see tests/support/cloud.py); the engine
that builds images is a program of this test's that puts a manifest into the emulator's registry.
"""

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import IMAGE, emulate, in_infra, shell
from tests.support.commands import TOOLS, Outcome, run
from tests.support.servers import http_server
from tests.support.workspaces import Workspace

pytestmark = pytest.mark.cloud

CLUSTER = "prd-agent-cluster"
# Actions that AWS allows for all resources or for none.
WITHOUT_RESOURCES = {
    "ecr:GetAuthorizationToken",
    "ecs:DeregisterTaskDefinition",
    "ecs:DescribeTaskDefinition",
    "inspector2:ListCoverage",
    "inspector2:ListFindings",
}
# As GitHub calls a repository in the tokens of its workflows.
REPOSITORY = "example@123456/agent-api@456789"
ENHANCED = {"severity": "CRITICAL", "packageVulnerabilityDetails": {"vulnerabilityId": "CVE-4"}}
# Stands before the AWS CLI, and knows of no scan, as the registry in the first moments, for as many times as are left.
NO_SCAN_YET = """#!/bin/sh
left=$(cat "$0.left")
if [ "$2" = describe-image-scan-findings ] && [ "$left" -gt 0 ]; then
    echo "$((left - 1))" >"$0.left"
    echo "An error occurred (ScanNotFoundException)" >&2
    exit 254
fi
exec {aws} "$@"
"""
# What CloudFormation calls when another image is set, by the type of resource and the operation: a new task definition
# in place of the old one, for which the service is changed.
OPERATIONS = {"AWS::ECS::TaskDefinition": ("create", "delete"), "AWS::ECS::Service": ("update",)}
NEW = IMAGE.replace("0" * 64, "1" * 64)
KEY = "ak_" + "s3cret" * 12

# Stands for Docker. "build" keeps the tag, "push" puts an image of that tag into the registry.
DOCKER = """#!/bin/sh
set -eu
echo "docker $*" >> "$DOCKER_LOG"
if [ "$1" = login ]; then read -r password; [ -n "$password" ]; fi
if [ "$1" = push ]; then
    tag=${2##*:} type=application/vnd.docker.distribution.manifest.v2+json
    # moto makes the image's digest of its layers'. Without any it takes one of a hundred at random, so two would be equal.
    manifest="{\\"schemaVersion\\": 2, \\"mediaType\\": \\"$type\\", \\"layers\\": [{\\"digest\\": \\"$tag\\"}], \\"config\\": {}}"
    aws ecr put-image --repository-name agent-api --image-tag "$tag" --image-manifest "$manifest" >/dev/null
    # moto scans nothing by itself, as the registry does.
    aws ecr start-image-scan --repository-name agent-api --image-id "imageTag=$tag" >/dev/null
fi
"""


class Account:
    """prd in the emulator, and the scripts that deliver to it."""

    def __init__(self, infra: Path, env: dict[str, str], folder: Path) -> None:
        self.infra = infra
        self.env = {**env, "SMOKE_PAUSE": "0.1", "SCAN_PAUSE": "0.1"}
        self._exit_code = folder / "exit_code"

    def tell(self, path: str, what: object) -> None:
        """Tell the emulator how to behave."""
        url = f"{self.env['AWS_ENDPOINT_URL']}/moto-api/{path}"
        run("curl", "--silent", "--fail", "--json", json.dumps(what), url)

    def migrations_end_with(self, code: int) -> None:
        self._exit_code.write_text(str(code))

    def script(self, name: str, *arguments: str, **env: str) -> Outcome:
        program = self.infra / "deliver" / name
        return run(program, *arguments, env={**self.env, **env}, check=False, timeout=300)

    def ask(self, command: str) -> Any:
        return json.loads(shell(f"aws {command}", self.env).output)

    def image_of(self, task: str) -> str:
        query = "taskDefinition.containerDefinitions[0].image"
        return str(self.ask(f"ecs describe-task-definition --task-definition {task} --query {query}"))

    def served(self) -> str:
        """The image that the service runs, by its task definition."""
        query = "services[0].taskDefinition"
        services = f"ecs describe-services --cluster {CLUSTER} --services prd-agent-api --query {query}"
        return self.image_of(self.ask(services))

    def tasks(self) -> set[str]:
        """The tasks that have run."""
        return set(self.ask(f"ecs list-tasks --cluster {CLUSTER} --query taskArns"))

    def ran(self, task: str) -> tuple[str, str]:
        """What a task was, and with which image it ran."""
        query = "tasks[0].containers[0].[name, image]"
        describe = f"ecs describe-tasks --cluster {CLUSTER} --tasks {task} --query '{query}'"
        name, image = self.ask(describe)
        return name, image


@pytest.fixture(scope="module")
def shared(
    infra: Path, written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("account")
    with emulate(infra, written["new"], folder) as env:
        account = Account(infra, env, folder)
        transition = {"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1}}
        account.tell("state-manager/set-transition", transition)
        yield account


@pytest.fixture
def account(shared: Account) -> Account:
    """The account with the service as it was when prd was made."""
    shared.migrations_end_with(0)
    if shared.served() != IMAGE:
        outcome = shared.script("roll.sh", "prd", IMAGE)
        assert outcome.code == 0, outcome.output
    return shared


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

    with http_server(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def test_a_delivery_migrates_then_rolls_then_asks(account: Account, service: Service) -> None:
    service.answers[f"/v1/agents Bearer {KEY}"] = 200
    before = account.tasks()
    outcome = account.script("deliver.sh", "prd", NEW, service.url, SMOKE_KEY=KEY)
    assert outcome.code == 0, outcome.output
    steps = ("Migrated.", f"prd-agent-api: {IMAGE} -> {NEW}", "ok  ")
    assert sorted(steps, key=outcome.output.index) == list(steps)
    assert account.served() == NEW
    (task,) = account.tasks() - before
    assert account.ran(task) == ("prd-agent-api-migrate", NEW)
    assert service.asked == ["/ready", "/v1/agents", f"/v1/agents Bearer {KEY}"]
    assert KEY not in outcome.output

    again = account.script("roll.sh", "prd", NEW)
    assert (again.code, again.output) == (0, "prd-agent-api has this image already.\n")


def test_a_failing_migration_stops_the_delivery(account: Account, service: Service) -> None:
    account.migrations_end_with(255)
    before = account.tasks()
    outcome = account.script("deliver.sh", "prd", NEW, service.url)
    assert outcome.code == 1
    assert "The migration failed: STOPPED 255. The service is as it was." in outcome.output
    assert account.served() == IMAGE
    assert len(account.tasks() - before) == 1
    assert service.asked == []


def test_a_failing_smoke_test_rolls_back(account: Account, service: Service) -> None:
    service.answers["/ready"] = 503
    before = account.tasks()
    outcome = account.script("deliver.sh", "prd", NEW, service.url)
    assert outcome.code == 1, outcome.output
    assert f"prd-agent-api: {IMAGE} -> {NEW}" in outcome.output
    assert "/ready answers 503, not 200." in outcome.output
    assert f"Rolling back.\nprd-agent-api: {NEW} -> {IMAGE}" in outcome.output
    assert account.served() == IMAGE
    # Only the service goes back. The database stays where the migration brought it.
    assert len(account.tasks() - before) == 1


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/ready", 503, 200),
        ("/v1/agents", 200, 401),
        ("/v1/agents", 500, 401),
        (f"/v1/agents Bearer {KEY}", 401, 200),
    ],
)
def test_what_the_smoke_test_finds(
    infra: Path, service: Service, path: str, status: int, expected: int
) -> None:
    env = {"SMOKE_KEY": KEY, "SMOKE_PAUSE": "0"}
    service.answers |= {f"/v1/agents Bearer {KEY}": 200, path: status}
    outcome = run(infra / "deliver/smoke.sh", service.url, env=env, check=False)
    assert outcome.code == 1
    assert f"{path.partition(' ')[0]} answers {status}, not {expected}." in outcome.output
    assert service.asked.count(path) == 10
    assert KEY not in outcome.output


def test_what_cannot_be_done_is_said(account: Account) -> None:
    outcome = account.script("deliver.sh", "prd", NEW)
    assert (outcome.code, outcome.output) == (2, "usage: deliver.sh ENVIRONMENT IMAGE URL\n")
    outcome = account.script("roll.sh", "tst", NEW)
    assert outcome.code != 0
    assert "tst-agent-api" in outcome.output


@pytest.fixture(scope="module")
def registry(shared: Account, written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Account:
    """The account with the registry, and Docker's stand-in on PATH."""
    template = written["new"] / "agent-api-registry.template.json"
    shared.ask(
        f"cloudformation create-stack --stack-name agent-api-registry --template-body file://{template}"
    )
    programs = tmp_path_factory.mktemp("programs")
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    shared.env["PATH"] = f"{programs}:{shared.env['PATH']}"
    shared.env["DOCKER_LOG"] = str(programs / "docker.log")
    return shared


def test_an_image_is_built_once_scanned_and_named_by_its_digest(registry: Account) -> None:
    commit = "c" * 40
    base = f"python:3.13-slim-trixie@sha256:{'b' * 64}"
    outcome = registry.script("build.sh", commit, PYTHON_IMAGE=base)
    assert outcome.code == 0, outcome.output
    described = registry.ask(f"ecr describe-images --repository-name agent-api --image-ids imageTag={commit}")
    digest = described["imageDetails"][0]["imageDigest"]
    name = outcome.output.splitlines()[-1]
    assert name.endswith(f"/agent-api@{digest}")
    login, build, push = Path(registry.env["DOCKER_LOG"]).read_text().splitlines()
    assert login == f"docker login --username AWS --password-stdin {name.partition('/')[0]}"
    assert build.endswith(str(registry.infra / "deliver/../.."))
    assert "--provenance=false" in build
    assert f"--build-arg PYTHON_IMAGE={base} --label" in build, (
        "the base by its digest, and no other argument"
    )
    assert push == f"docker push {name.partition('@')[0]}:{commit}"

    again = registry.script("build.sh", commit)
    assert again.output.splitlines() == [name], "the tag is there: nothing is built again"


def test_a_critical_finding_stops_the_delivery_unless_it_is_accepted(registry: Account, infra: Path) -> None:
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
    results = {"results": [scan], "region": registry.env["AWS_DEFAULT_REGION"]}
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


@pytest.mark.parametrize(
    ("commit", "status", "found", "said"),
    [
        ("1" * 40, "COMPLETE", {}, ""),
        ("2" * 40, "ACTIVE", {}, ""),
        ("3" * 40, "ACTIVE", {"enhancedFindings": [ENHANCED]}, "The scan found CVE-4."),
        ("4" * 40, "UNSUPPORTED_IMAGE", {}, "is UNSUPPORTED_IMAGE, so nobody knows what is in it."),
    ],
)
def test_how_a_scan_may_end(
    registry: Account, commit: str, status: str, found: dict[str, Any], said: str
) -> None:
    """With Inspector's enhanced scanning, too, which never ends."""
    image = registry.script("build.sh", commit).output.splitlines()[-1]
    scan = {
        "imageScanFindings": found,
        "repositoryName": "agent-api",
        "imageId": {"imageDigest": image.partition("@")[2]},
        "imageScanStatus": {"status": status},
    }
    registry.tell("static/ecr/scan-finding-results", {"results": [scan], "region": "eu-central-1"})
    outcome = registry.script("build.sh", commit)
    assert outcome.code == bool(said), outcome.output
    assert said in outcome.output
    assert (image in outcome.output) is not bool(said)


def test_the_scan_may_take_its_time(registry: Account, tmp_path: Path) -> None:
    commit = "5" * 40
    image = registry.script("build.sh", commit).output.splitlines()[-1]
    aws = tmp_path / "aws"
    aws.write_text(NO_SCAN_YET.format(aws=registry.infra / ".venv/bin/aws"))
    aws.chmod(0o755)
    late = {"PATH": f"{tmp_path}:{registry.env['PATH']}", "SCAN_PAUSE": "0"}
    for times, code, said in (
        (2, 0, image),
        (1000, 1, f"The registry has no scan of {image.partition('@')[2]}"),
    ):
        aws.with_name("aws.left").write_text(str(times))
        outcome = registry.script("build.sh", commit, **late)
        assert (outcome.code, outcome.output.splitlines()[0].startswith(said)) == (code, True), outcome.output
    assert "(ScanNotFoundException)" in outcome.output


def test_the_roles_of_the_workflow(infra: Path, shared: Account) -> None:
    template = infra / "delivery.yaml"
    in_infra(infra, "cfn-lint", "--non-zero-exit-code", "informational", "--", template)
    shared.ask(
        f"cloudformation create-stack --stack-name agent-api-delivery --template-body file://{template}"
        f" --parameters ParameterKey=Repository,ParameterValue={REPOSITORY}"
        " --capabilities CAPABILITY_NAMED_IAM"
    )
    subjects = {
        "agent-api-push": "ref:refs/heads/main",
        "stg-agent-api-deliver": "environment:stg",
        "prd-agent-api-deliver": "environment:prd",
    }
    for name, subject in subjects.items():
        role = shared.ask(f"iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument")
        (statement,) = role["Statement"]
        assert statement["Condition"]["StringEquals"] == {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:{REPOSITORY}:{subject}",
        }
        (policy,) = shared.ask(f"iam list-role-policies --role-name {name} --query PolicyNames")
        get = f"iam get-role-policy --role-name {name} --policy-name {policy} --query PolicyDocument"
        document = ast.literal_eval(shared.ask(get))  # moto keeps Python's text of it
        other = "stg-" if name.startswith("prd-") else "prd-"
        assert other not in json.dumps(document), "a role reaches into another environment"
        allowed = set()
        for statement in document["Statement"]:
            action = statement["Action"]
            actions = {action} if isinstance(action, str) else set(action)
            assert "*" not in "".join(actions), "a role may do more than is listed"
            assert statement["Resource"] != "*" or actions <= WITHOUT_RESOURCES
            allowed |= actions
        if name != "agent-api-push":
            assert needed_by_cloudformation(infra) <= allowed


def needed_by_cloudformation(infra: Path) -> set[str]:
    """The rights that AWS' schemas of the resources name, which come with cfn-lint."""
    needed = set()
    (folder,) = infra.glob(".venv/lib/*/site-packages/cfnlint/data/schemas/resources")
    for path in folder.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        for operation in OPERATIONS.get(schema["typeName"], ()):
            needed |= set(schema["handlers"][operation]["permissions"])
    assert {"ecs:RegisterTaskDefinition", "ecs:UpdateService", "iam:PassRole"} <= needed
    return needed


def test_shellcheck_finds_nothing(bake: Callable[..., Workspace]) -> None:
    for answers in ({}, {"project_slug": "a" * 40}):
        scripts = sorted((bake(**answers).path / "infra/deliver").glob("*.sh"))
        assert len(scripts) == 6
        run(TOOLS / "shellcheck", "--external-sources", *scripts, cwd=scripts[0].parent)
