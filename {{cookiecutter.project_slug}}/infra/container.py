"""What all tasks have in common: the image, the database, the log, and as few rights as can be."""

from collections.abc import Mapping
from typing import Any

from aws_cdk import CfnParameter, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager

from base import Base
from database import PORT
from nag import accept
from names import DATABASE, REPOSITORY, Names
from settings import CERTIFICATE, Settings


def login(secret: secretsmanager.ISecret, prefix: str = "DB") -> dict[str, ecs.Secret]:
    """Return the variables for a name and a password, which both come from the secret."""
    return {
        f"{prefix}_USER": ecs.Secret.from_secrets_manager(secret, "username"),
        f"{prefix}_PASS": ecs.Secret.from_secrets_manager(secret, "password"),
    }


def image_parameter(stack: Stack) -> str:
    """Return the image, which each deployment names anew: by its digest, as a tag may move."""
    digest = CfnParameter(stack, "Image", allowed_pattern=".+@sha256:[0-9a-f]{64}")
    digest.description = "REPOSITORY@sha256:DIGEST of the production image"
    return digest.value_as_string


def make_task(
    stack: Stack,
    name: str,
    base: Base,
    settings: Settings,
    *,
    image: str,
    log: logs.ILogGroup,
    secrets: Mapping[str, ecs.Secret],
    environment: Mapping[str, str] | None = None,
    read_only: bool = True,
    **options: Any,
) -> ecs.FargateTaskDefinition:
    """Return a task definition with one container, which has its name and the given `options`.

    ECS may read the `secrets` for it, and no others. With `read_only` it can write to /tmp alone.
    """
    # With more than the name's own end, which may be what something else in the stack is called.
    logical = f"{name.rpartition('-')[2].capitalize()}Task"
    task = ecs.FargateTaskDefinition(
        stack,
        logical,
        family=name,
        task_role=_role(stack, f"{logical}Role", settings),
        execution_role=_role(stack, f"{logical}ExecutionRole", settings),
        cpu=settings.cpu,
        memory_limit_mib=settings.memory,
        runtime_platform=ecs.RuntimePlatform(
            cpu_architecture=ecs.CpuArchitecture.of(settings.architecture),
            operating_system_family=ecs.OperatingSystemFamily.LINUX,
        ),
    )
    # Collects the processes that execute-command leaves behind.
    linux = ecs.LinuxParameters(task, "Linux", init_process_enabled=True)
    if read_only:
        linux.add_tmpfs(ecs.Tmpfs(container_path="/tmp", size=64))
    task.add_container(
        name,
        image=ecs.ContainerImage.from_registry(image),
        memory_limit_mib=settings.memory,
        user="10001:10001",  # the image's own, see the Dockerfile
        linux_parameters=linux,
        readonly_root_filesystem=read_only,
        environment={**_database(base, settings), **(environment or {})},
        secrets=secrets,
        logging=ecs.LogDrivers.aws_logs(stream_prefix="ecs", log_group=log),
        **options,
    )
    repository = ecr.Repository.from_repository_name(task, "Repository", REPOSITORY)
    repository.grant_pull(task.obtain_execution_role())
    accept(task, {"ECS2": "None of these variables is secret. Those that are come from Secrets Manager."})
    return task


def _role(stack: Stack, name: str, settings: Settings) -> iam.Role:
    # By their path, whoever delivers may hand on these roles and no others, see delivery.yaml.
    path = f"/{Names.of(settings.environment).service}/"
    role = iam.Role(stack, name, path=path, assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
    no_resources = "ecr:GetAuthorizationToken and the ssmmessages actions know no resources."
    accept(role, {"IAM5[Resource::*]": no_resources})
    return role


def _database(base: Base, settings: Settings) -> dict[str, str]:
    tls = {"DB_SSLMODE": "require"}
    if settings.verify_certificate:
        tls = {"DB_SSLMODE": "verify-full", "DB_SSLROOTCERT": f"/app/{CERTIFICATE}"}
    return {
        "RUNTIME_ENV": settings.environment,
        "DB_HOST": base.database.attr_endpoint_address,
        "DB_PORT": str(PORT),
        "DB_DATABASE": DATABASE,
        **tls,
    }
