"""infra/: the stacks as they would be deployed, and the documents' commands on them in an emulator of AWS."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import VARIANTS, in_infra, shell, synth
from tests.support.command_blocks import Block, read_blocks
from tests.support.commands import run
from tests.support.places import settings_told
from tests.support.workspaces import ODD_ANSWERS, Workspace, raw

pytestmark = pytest.mark.cloud

# What `aws cloudformation deploy` takes without a bucket.
LARGEST = 51_200
EXECUTE_COMMAND = {
    f"ssmmessages:{action}Channel" for action in ("CreateControl", "CreateData", "OpenControl", "OpenData")
}
# Variables that are read by uvicorn, not by the workspace's code.
OF_UVICORN = {"FORWARDED_ALLOW_IPS", "UVICORN_TIMEOUT_KEEP_ALIVE"}


@dataclass(frozen=True)
class Stacks:
    """The templates of one environment and variant."""

    environment: str
    variant: str
    base: dict[str, Any]
    tasks: dict[str, Any]
    service: dict[str, Any]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        templates = (self.base, self.tasks, self.service)
        return [
            resource.get("Properties", {})
            for template in templates
            for resource in template["Resources"].values()
            if resource["Type"] == f"AWS::{kind}"
        ]

    def task(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A task definition and its container."""
        family = f"{self.environment}-agent-api{name}"
        (task,) = [task for task in self.of_type("ECS::TaskDefinition") if task["Family"] == family]
        (container,) = task["ContainerDefinitions"]
        assert container["Name"] == family
        return task, container

    def role(self, name: str) -> dict[str, Any]:
        """The role with this logical id."""
        resources = {**self.tasks["Resources"], **self.service["Resources"]}
        properties: dict[str, Any] = resources[name]["Properties"]
        return properties

    def allowed(self, role: str) -> list[tuple[set[str], Any]]:
        """What the role with this logical id may do, as actions and resource."""
        return [
            (set(_list(statement["Action"])), statement["Resource"])
            for policy in self.of_type("IAM::Policy")
            if {"Ref": role} in policy["Roles"]
            for statement in policy["PolicyDocument"]["Statement"]
        ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.fixture(
    params=[(environment, variant) for environment in ("stg", "prd") for variant in VARIANTS], ids="-".join
)
def stacks(request: pytest.FixtureRequest, written: dict[str, Path]) -> Stacks:
    environment, variant = request.param
    name = f"{environment}-agent-api"
    files = (written[variant] / f"{stack}.template.json" for stack in (f"{name}-base", f"{name}-tasks", name))
    return Stacks(environment, variant, *(json.loads(file.read_text(encoding="utf-8")) for file in files))


def test_checkers_find_nothing(infra: Path, written: dict[str, Path]) -> None:
    for folder in written.values():
        templates = sorted(folder.glob("*.template.json"))
        assert len(templates) == 7
        in_infra(infra, "cfn-lint", "--non-zero-exit-code", "informational", "--", *templates, timeout=600)
        for template in templates:
            assert template.stat().st_size < LARGEST
        assert not list(folder.glob("asset.*")), "there is something to upload, for which nothing is prepared"
    in_infra(infra, "ruff", "check", "--no-cache", ".")
    in_infra(infra, "ruff", "format", "--no-cache", "--check", ".")
    in_infra(infra, "mypy", timeout=1200)


def test_only_names_differ_from_answer_to_answer(infra: Path, bake: Callable[..., Workspace]) -> None:
    for answers in ({**ODD_ANSWERS[1], "model_provider": "bedrock"}, {"project_slug": "a" * 40}):
        other = bake(**{name: raw(value) for name, value in answers.items()}).path / "infra"
        in_infra(infra, "ruff", "check", "--no-cache", other)
        in_infra(infra, "ruff", "format", "--no-cache", "--check", other)
        for file in infra.glob("*.py"):
            assert file.name == "names.py" or file.read_bytes() == (other / file.name).read_bytes()
        names = in_infra(infra, "python", "-B", other / "names.py", "prd").output.split()
        assert max(len(line.partition("=")[2]) for line in names) <= 63


def test_a_short_name_may_be_that_of_a_part(
    infra: Path, bake: Callable[..., Workspace], tmp_path: Path
) -> None:
    """The end of the slug is part of names in the templates."""
    other = bake(project_slug="chat-service").path
    (other / "db/global-bundle.pem").write_text("The authority's certificate.\n", encoding="utf-8")
    synth(infra, "new", tmp_path, cwd=other / "infra")
    assert (tmp_path / "prd-chat-service.template.json").is_file()


def test_broken_rules_stop_the_synthesis(with_certificate: Path, tmp_path: Path) -> None:
    without_exceptions = """
import nag, settings
nag.accept = lambda construct, reasons: None
settings.ENVIRONMENTS = settings.ENVIRONMENTS[:1]
"""
    outcome = synth(with_certificate, "new", tmp_path, without_exceptions, check=False, timeout=600)
    assert outcome.code != 0
    assert {"SMG4", "EC23", "ECS2", "RDS11"} <= set(re.findall(r"AwsSolutions-(\w+)", outcome.output))


def test_missing_settings_are_said_in_a_sentence(infra: Path) -> None:
    outcome = in_infra(infra, "python", "app.py", check=False)
    assert outcome.code == 1
    assert outcome.output.startswith(
        "infra/settings.py, stg: set domain, hosted_zone_id and hosted_zone_name, or"
    )
    assert outcome.output.count("\n") == 1


def test_a_missing_certificate_is_said_in_a_sentence(with_certificate: Path, tmp_path: Path) -> None:
    elsewhere = f"import settings, pathlib; settings.WORKSPACE = pathlib.Path({str(tmp_path)!r})"
    outcome = synth(with_certificate, "new", tmp_path, elsewhere, check=False)
    assert "db/global-bundle.pem isn't there" in outcome.output
    assert "curl --fail --output db/global-bundle.pem https://truststore" in outcome.output


def test_database(stacks: Stacks) -> None:
    (database,) = stacks.of_type("RDS::DBInstance")
    production = stacks.environment == "prd"
    assert database["StorageEncrypted"] is True
    assert database["PubliclyAccessible"] is False
    assert database["ManageMasterUserPassword"] is True
    assert database["EngineVersion"].partition(".")[0] == "18"
    assert database["MaxAllocatedStorage"] > int(database["AllocatedStorage"])
    assert database["BackupRetentionPeriod"] >= (14 if production else 1)
    assert database["MultiAZ"] is database["DeletionProtection"] is production
    (resource,) = [
        item for item in stacks.base["Resources"].values() if item["Type"] == "AWS::RDS::DBInstance"
    ]
    assert resource["DeletionPolicy"] == ("Snapshot" if production else "Delete")
    (parameters,) = stacks.of_type("RDS::DBParameterGroup")
    assert parameters["Parameters"]["rds.force_ssl"] == "1"
    # Only tasks are let in, by their groups, and only where PostgreSQL listens.
    to_database = [rule for rule in stacks.of_type("EC2::SecurityGroupIngress") if rule["FromPort"] == 5432]
    assert len(to_database) == 2
    for rule in to_database:
        assert "SourceSecurityGroupId" in rule
        assert "CidrIp" not in rule
    groups = stacks.of_type("EC2::SecurityGroup")
    public = [group for group in groups if "0.0.0.0/0" in json.dumps(group.get("SecurityGroupIngress", []))]
    assert [{rule["FromPort"] for rule in group["SecurityGroupIngress"]} for group in public] == [{80, 443}]


def test_bedrock_is_asked_by_the_services_role(with_certificate: Path, tmp_path: Path) -> None:
    """Without a key, and no other task may; what that needs passes the checks as all else does."""
    synth(with_certificate, "existing", tmp_path, "import names; names.MODEL_KEY = ''", timeout=600)
    name = "prd-agent-api"
    files = (tmp_path / f"{stack}.template.json" for stack in (f"{name}-base", f"{name}-tasks", name))
    stacks = Stacks("prd", "existing", *(json.loads(file.read_text(encoding="utf-8")) for file in files))
    assert len(stacks.of_type("SecretsManager::Secret")) == 2
    task, container = stacks.task("")
    assert {"Name": "AWS_REGION", "Value": "eu-central-1"} in container["Environment"]
    assert not [secret for secret in container["Secrets"] if "KEY" in secret["Name"]]
    actions = {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}
    profiles = "bedrock:eu-central-1:${AWS::AccountId}:inference-profile/*.anthropic.claude-*"
    assert stacks.allowed(task["TaskRoleArn"]["Fn::GetAtt"][0]) == [
        (actions, {"Fn::Sub": "arn:${AWS::Partition}:bedrock:*::foundation-model/anthropic.claude-*"}),
        (actions, {"Fn::Sub": f"arn:${{AWS::Partition}}:{profiles}"}),
    ]
    for other in ("-migrate", "-roles"):
        assert stacks.allowed(stacks.task(other)[0]["TaskRoleArn"]["Fn::GetAtt"][0]) == []


def test_tasks_may_do_what_they_need_and_nothing_else(stacks: Stacks) -> None:
    secrets = {
        "": {"DB_USER", "DB_PASS", "OPENAI_API_KEY"},
        "-migrate": {"DB_USER", "DB_PASS"},
        "-roles": {
            f"{role}_{part}" for role in ("DB", "MIGRATE_DB", "ADMIN_DB") for part in ("USER", "PASS")
        },
    }
    if stacks.variant == "existing":
        secrets[""] |= {"MIGRATE_DB_USER", "MIGRATE_DB_PASS"}
    roles = set()
    for name, expected in secrets.items():
        task, container = stacks.task(name)
        assert {secret["Name"] for secret in container["Secrets"]} == expected
        role, execution = (task[f"{kind}RoleArn"]["Fn::GetAtt"][0] for kind in ("Task", "Execution"))
        roles |= {role, execution}
        for its in (role, execution):  # by which delivery.yaml knows them
            assert stacks.role(its)["Path"] == f"/{stacks.environment}-agent-api/"
        may_execute = not name and stacks.variant == "new"
        assert stacks.allowed(role) == ([(EXECUTE_COMMAND, "*")] if may_execute else [])
        # ECS reads the secrets of the container, and no others.
        readable = [
            resource
            for actions, resource in stacks.allowed(execution)
            if "secretsmanager:GetSecretValue" in actions
        ]
        used = [secret["ValueFrom"] for secret in container["Secrets"]]
        of = [value["Fn::Join"][1][0] if "Fn::Join" in value else value for value in used]
        assert {json.dumps(resource) for resource in readable} == {json.dumps(value) for value in of}
        everything = {
            action for actions, resource in stacks.allowed(execution) if resource == "*" for action in actions
        }
        assert everything == {"ecr:GetAuthorizationToken"}
        assert container["User"] == "10001:10001"
        assert container["ReadonlyRootFilesystem"] is not may_execute
        if not may_execute:
            (temporary,) = container["LinuxParameters"]["Tmpfs"]
            assert temporary["ContainerPath"] == "/tmp"
    assert len(roles) == 6, "tasks share a role"
    (service,) = stacks.of_type("ECS::Service")
    assert service["EnableExecuteCommand"] is (stacks.variant == "new")
    (cluster,) = stacks.of_type("ECS::Cluster")
    assert cluster["Configuration"]["ExecuteCommandConfiguration"]["Logging"] == "NONE"


def test_names_are_the_guides(stacks: Stacks, infra: Path) -> None:
    guide = (infra.parent / "db/README.md").read_text(encoding="utf-8")
    cluster, container = (
        re.findall(rf"^{name}=prd(-\S+)$", guide, re.MULTILINE) for name in ("ECS_CLUSTER", "CONTAINER_NAME")
    )
    (named,) = stacks.of_type("ECS::Cluster")
    assert (
        named["ClusterName"] == f"{stacks.environment}{cluster[0]}" == f"{stacks.environment}-agent-cluster"
    )
    (service,) = stacks.of_type("ECS::Service")
    assert service["ServiceName"] == f"{stacks.environment}{container[0]}"
    assert stacks.task("")[1]["Name"] == service["ServiceName"]


def test_migration_comes_before_traffic_in_one_of_two_ways(stacks: Stacks) -> None:
    assert stacks.task("-migrate")[1]["Command"] == ["alembic", "-c", "db/alembic.ini", "upgrade", "head"]
    _, container = stacks.task("")
    environment = {item["Name"]: item["Value"] for item in container["Environment"]}
    assert environment["MIGRATE_DB"] == str(stacks.variant == "existing")
    assert environment["MIGRATE_WHEN_AHEAD"] == "start"
    assert environment["DB_SSLMODE"] == "verify-full"
    assert environment["RUNTIME_ENV"] == stacks.environment


def test_variables_are_known_to_the_workspace(stacks: Stacks, infra: Path) -> None:
    told = settings_told(Workspace(infra.parent))
    for name in ("", "-migrate", "-roles"):
        _, container = stacks.task(name)
        given = {item["Name"] for item in container["Environment"] + container["Secrets"]}
        assert given - OF_UVICORN <= told


def test_service_rolls_back_scales_and_is_reached_with_tls_only(stacks: Stacks) -> None:
    (service,) = stacks.of_type("ECS::Service")
    deployment = service["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
    assert "DesiredCount" not in service, "a deployment would undo what the scaling did"
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
    (scaling,) = stacks.of_type("ApplicationAutoScaling::ScalableTarget")
    assert 1 <= scaling["MinCapacity"] < scaling["MaxCapacity"]
    tracked = {
        policy["TargetTrackingScalingPolicyConfiguration"]
        .get("CustomizedMetricSpecification", {})
        .get("MetricName", "CPU")
        for policy in stacks.of_type("ApplicationAutoScaling::ScalingPolicy")
    }
    assert tracked == {"CPU", "RunsPercent"}
    (filtered,) = stacks.of_type("Logs::MetricFilter")
    (made,) = filtered["MetricTransformations"]
    assert made["MetricName"] == "RunsPercent"
    # What the service writes, see chassis/tests/test_overload.py.
    assert made["MetricValue"] == "$.runs_percent"
    assert filtered["FilterPattern"] == "{ $.runs_percent >= 0 }"
    (target,) = stacks.of_type("ElasticLoadBalancingV2::TargetGroup")
    assert target["HealthCheckPath"] == "/ready"
    listeners = {item["Port"]: item for item in stacks.of_type("ElasticLoadBalancingV2::Listener")}
    assert listeners[443]["Certificates"]
    assert listeners[443]["SslPolicy"].startswith("ELBSecurityPolicy-TLS13")
    assert [action["Type"] for action in listeners[80]["DefaultActions"]] == ["redirect"]
    (balancer,) = stacks.of_type("ElasticLoadBalancingV2::LoadBalancer")
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    assert attributes["access_logs.s3.enabled"] == "true"
    idle = int(attributes["idle_timeout.timeout_seconds"])
    _, container = stacks.task("")
    kept = {item["Name"]: item["Value"] for item in container["Environment"]}["UVICORN_TIMEOUT_KEEP_ALIVE"]
    assert int(kept) > idle, "the load balancer would send requests into connections that were just closed"
    for log in stacks.of_type("Logs::LogGroup"):
        assert log["RetentionInDays"] <= 90
    watched = {alarm["MetricName"] for alarm in stacks.of_type("CloudWatch::Alarm")}
    assert watched >= {
        "HTTPCode_Target_5XX_Count",
        "HTTPCode_ELB_5XX_Count",
        "TargetResponseTime",
        "HealthyHostCount",
    }
    assert watched >= {"CPUUtilization", "FreeStorageSpace", "DatabaseConnections"}
    for alarm in stacks.of_type("CloudWatch::Alarm"):
        assert alarm["AlarmActions"]
    assert len(stacks.of_type("SNS::Subscription")) == (stacks.variant == "existing")


def test_no_secret_is_in_a_template(stacks: Stacks) -> None:
    for secret in stacks.of_type("SecretsManager::Secret"):
        assert "SecretString" not in secret
        assert "password" not in secret["GenerateSecretString"].get("SecretStringTemplate", "")
    (database,) = stacks.of_type("RDS::DBInstance")
    assert "MasterUserPassword" not in database
    for task in stacks.of_type("ECS::TaskDefinition"):
        for variable in task["ContainerDefinitions"][0]["Environment"]:
            assert not re.search(r"PASS|KEY$|TOKEN|SECRET|URL", variable["Name"])


def commands(infra: Path, document: str, heading: str) -> str:
    blocks: list[Block] = read_blocks((infra.parent / document).read_text(encoding="utf-8"), document)
    (block,) = [block for block in blocks if heading in block.heading and "aws ecs" in block.text]
    return block.text


def test_the_guides_commands_in_the_emulator(infra: Path, emulator: dict[str, str]) -> None:
    """Up to execute-command itself, which the emulator doesn't know, and which needs a plugin of AWS' own."""
    start = (
        "aws ecs run-task --cluster prd-agent-cluster --launch-type FARGATE --task-definition prd-agent-api"
    )
    network = '--network-configuration "awsvpcConfiguration={subnets=[subnet-1]}"'
    shell(f"{start} {network}", emulator)
    script = commands(infra, "db/README.md", "by hand, in the running ECS container")
    before, _, execute = script.partition("aws ecs execute-command")
    found = shell(f'{before}\necho "$ECS_CLUSTER $CONTAINER_NAME $TASK_ARN"', emulator).output.split()
    assert found[:2] == ["prd-agent-cluster", "prd-agent-api"]
    assert ":task/prd-agent-cluster/" in found[2]
    described = shell(f"{before}\naws ecs describe-tasks --cluster $ECS_CLUSTER --tasks $TASK_ARN", emulator)
    (task,) = json.loads(described.output)["tasks"]
    assert "prd-agent-api" in [container["name"] for container in task["containers"]]
    service = shell(
        "aws ecs describe-services --cluster prd-agent-cluster --services prd-agent-api", emulator
    )
    (described_service,) = json.loads(service.output)["services"]
    assert described_service["serviceName"] == "prd-agent-api"
    end = shell(f"{before}\naws ecs execute-command{execute}", emulator, check=False)
    assert end.code != 0
    assert "usage:" not in end.output, "the AWS CLI itself refuses the command"
    assert re.search(r"SessionManagerPlugin is not found|execute_command action has not been", end.output), (
        end.output
    )


def test_a_task_runs_once_in_the_emulator(infra: Path, emulator: dict[str, str]) -> None:
    transition = {"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1}}
    url = f"{emulator['AWS_ENDPOINT_URL']}/moto-api/state-manager/set-transition"
    run("curl", "--silent", "--fail", "--json", json.dumps(transition), url)
    script = commands(infra, "infra/README.md", "Run a task once")
    shown = 'echo "$TASK_ARN"; aws ecs describe-tasks --cluster $ECS_CLUSTER --tasks $TASK_ARN'
    outcome = shell(f"{script}\n{shown}", emulator, timeout=300)
    document = json.loads(outcome.output[outcome.output.index("{") :])
    (task,) = document["tasks"]
    assert task["lastStatus"] == "STOPPED"
    assert "task-definition/prd-agent-api-migrate:1" in task["taskDefinitionArn"]
