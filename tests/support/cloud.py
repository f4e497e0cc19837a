"""What tests of the cloud share: infra/ with its environment, its templates, and an emulator of AWS with prd in it.

A plugin (`pytest_plugins` in conftest.py), so that all of it is made once.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, UV, Outcome, run
from tests.support.once import Once
from tests.support.servers import free_port, wait_until
from tests.support.workspaces import cookiecutter

IMAGE = f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/agent-api@sha256:{'0' * 64}"
REGION = "eu-central-1"
# Each way has a network, a certificate, a way to migrate and an access of its own.
VARIANTS = {
    "new": "domain='agent.example.com', hosted_zone_id='Z0123456789ABCDEFGHIJ', hosted_zone_name='example.com'",
    "existing": """
        certificate_arn='arn:aws:acm:eu-central-1:123456789012:certificate/00000000-0000-0000-0000-000000000000',
        vpc=ExistingVpc(
            id='vpc-0123456789abcdef0',
            public_subnets=('subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'),
            private_subnets=('subnet-0123456789abcdef2', 'subnet-0123456789abcdef3'),
        ),
        migrate='start', execute_command=False, alarm_email='agents@example.com'
    """,
}
SYNTH = """
import sys
from dataclasses import replace
{before}
from app import make_app
from settings import ENVIRONMENTS, ExistingVpc
make_app([replace(settings, {settings}) for settings in ENVIRONMENTS], sys.argv[1]).synth()
"""

# moto runs no container, and in an update of a stack it mangles task definitions and forgets the service.
# This has it say that containers ended with the code in a file, and update both as AWS does.
EMULATOR = """
import sys
from pathlib import Path
from moto.cloudformation.parsing import ResourceMap
from moto.ecs.models import Container, TaskDefinition
from moto.server import main

file = Path(sys.argv[1])
Container.exitCode = property(lambda self: int(file.read_text()), lambda self, value: None)
TaskDefinition.update_from_cloudformation_json = classmethod(
    lambda cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name:
    cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)
)
find = ResourceMap.build_resource_diff


def find_all(self, template, parameters=None):
    found = find(self, template, parameters)
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::ECS::Service":
            if resource["Properties"]["TaskDefinition"]["Ref"] in found["Modify"]:
                found["Modify"].append(name)
    return found


ResourceMap.build_resource_diff = find_all
main(sys.argv[2:])
"""


def synth_script(variant: str, before: str = "") -> str:
    """The program that writes the templates of a variant to the folder that it is given."""
    return SYNTH.format(settings=" ".join(VARIANTS[variant].split()), before=before)


def synth(infra: Path, variant: str, output: Path, before: str = "", **how: Any) -> Outcome:
    return in_infra(infra, "python", "-c", synth_script(variant, before), output, **how)


def in_infra(infra: Path, program: str, *arguments: str | Path, **how: Any) -> Outcome:
    """Run a program of infra's environment, with all of it on PATH: Node.js is part of it."""
    path = f"{infra / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    return run(infra / ".venv/bin" / program, *arguments, **{"cwd": infra, "env": {"PATH": path}, **how})


@pytest.fixture(scope="session")
def infra(once: Once) -> Path:
    """The infra folder of a workspace with its environment, to which the AWS CLI and the emulator were added."""

    def make(output: Path) -> None:
        outcome = cookiecutter(output, {"install": "no", "init_git": "no"})
        assert outcome.code == 0, outcome.output
        folder = output / "agent-api/infra"
        run(UV, "sync", "--quiet", cwd=folder, timeout=900)
        python = ("--python", folder / ".venv/bin/python")
        cloud = ("--group", f"{ROOT / 'pyproject.toml'}:cloud")
        run(UV, "pip", "install", "--quiet", *python, *cloud, cwd=folder, timeout=900)

    return once.folder("cloud", make) / "agent-api/infra"


@pytest.fixture(scope="session")
def with_certificate(infra: Path) -> Path:
    (infra.parent / "db/global-bundle.pem").write_text("The authority's certificate.\n", encoding="utf-8")
    return infra


@pytest.fixture(scope="session")
def written(with_certificate: Path, once: Once) -> dict[str, Path]:
    """The folder of templates for each variant."""

    def make(folder: Path, variant: str) -> None:
        began = time.monotonic()
        outcome = synth(with_certificate, variant, folder, timeout=600)
        assert "WARNING" not in outcome.output, outcome.output
        count = sum(
            len(json.loads(path.read_text(encoding="utf-8"))["Resources"])
            for path in folder.glob("*.template.json")
        )
        print(f"\n{variant}: stg and prd in {time.monotonic() - began:.1f} s, {count} resources")  # noqa: T201 -- a figure to keep an eye on

    return {variant: once.folder(variant, partial(make, variant=variant)) for variant in VARIANTS}


@pytest.fixture
def emulator(infra: Path, written: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, str]]:
    with emulate(infra, written["new"], tmp_path) as env:
        yield env


@contextmanager
def emulate(infra: Path, templates: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run an emulator of AWS in which prd was deployed; yields the environment that leads the AWS CLI to it.

    The file `exit_code` in the folder has the code with which containers end.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    env = {
        "PATH": f"{infra / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": address,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }
    with ExitStack() as stack:
        log = stack.enter_context((folder / "moto.log").open("w"))
        exit_code = folder / "exit_code"
        exit_code.write_text("0")
        moto = (infra / ".venv/bin/python", "-c", EMULATOR, exit_code, "-H", "127.0.0.1", "-p", str(port))
        process = subprocess.Popen(moto, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        curl = ["curl", "--silent", "--fail", "--max-time", "5", address + "/moto-api/data.json"]
        wait_until(lambda: subprocess.run(curl, capture_output=True, check=False).returncode == 0, 120)
        for name in ("prd-agent-api-base", "prd-agent-api-tasks", "prd-agent-api"):
            template = json.loads((templates / f"{name}.template.json").read_text(encoding="utf-8"))
            adapted = folder / f"{name}.json"
            adapted.write_text(json.dumps(for_emulator(template)), encoding="utf-8")
            parameters = (
                ["--parameters", f"ParameterKey=Image,ParameterValue={IMAGE}"]
                if "Parameters" in template
                else []
            )
            create = ["aws", "cloudformation", "create-stack", "--stack-name", name, *parameters]
            create += ["--capabilities", "CAPABILITY_IAM", "--template-body", f"file://{adapted}"]
            run(*create, env=env, cwd=infra)
        yield env


def for_emulator(template: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moto can't make from a template: RDS, secrets, certificates and records in DNS."""
    resources = template["Resources"]
    unknown = ("AWS::RDS::", "AWS::SecretsManager::", "AWS::CertificateManager::", "AWS::Route53::")
    gone = {name for name, resource in resources.items() if resource["Type"].startswith(unknown)}
    kept = {name: resource for name, resource in resources.items() if name not in gone}
    for resource in kept.values():
        if resource["Type"] == "AWS::ElasticLoadBalancingV2::Listener":
            resource["Properties"] |= {"Protocol": "HTTP"}
            resource["Properties"].pop("Certificates", None)
    outputs = template.get("Outputs", {})
    for name, output in outputs.items():
        if any(f'"{resource}"' in json.dumps(output["Value"]) for resource in gone):
            arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{name}"
            output["Value"] = "database.example.com" if "Endpoint" in name else arn
    outputs = {name: output for name, output in outputs.items() if not name.startswith("Service")}
    return {**template, "Resources": kept, "Outputs": outputs}


def shell(script: str, env: dict[str, str], **how: Any) -> Outcome:
    return run("bash", "-euo", "pipefail", "-c", script, env=env, **how)
