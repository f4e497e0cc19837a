"""What differs between the environments, and what a team decides. Nothing here is secret."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aws_cdk.aws_logs import RetentionDays

CERTIFICATE = "db/global-bundle.pem"
BUNDLE = f"https://truststore.pki.rds.amazonaws.com/global/{Path(CERTIFICATE).name}"
WORKSPACE = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting is missing or wrong. The text says which one and what to do."""


@dataclass(frozen=True, kw_only=True)
class ExistingVpc:
    """A network that is there already: its id, and two subnets or more of each kind, in different zones."""

    id: str
    public_subnets: tuple[str, ...]
    private_subnets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one environment."""

    environment: Literal["stg", "prd"]
    region: str = "eu-central-1"

    # The service's address, in a zone of Route 53, which a certificate is then made for; or a certificate of yours.
    domain: str = ""
    hosted_zone_id: str = ""
    hosted_zone_name: str = ""
    certificate_arn: str = ""

    # None makes a network with two zones. With one NAT gateway, the failure of a zone may cut off the other.
    vpc: ExistingVpc | None = None
    nat_gateways: int = 1

    # "task": a task of its own migrates before a new version is rolled out, and only that one has the password
    # of the role that owns the tables. "start": each container does when it starts (MIGRATE_DB=True).
    migrate: Literal["task", "start"] = "task"
    # With "start": for so long a task may migrate before it is replaced for not being ready, and a version that never
    # is has to fail some times as long before ECS goes back to the last one.
    migrate_seconds: int = 900
    # A shell in the running container. Without it, the container's file system is read-only.
    execute_command: bool = True
    cpu: int = 512
    memory: int = 1024
    # With ARM64, images must be built for it: PLATFORM=linux/arm64 for deliver/build.sh, see "Deploy" in README.md.
    architecture: Literal["X86_64", "ARM64"] = "X86_64"
    # Where Bedrock's models answer: those that the service may ask, by their ids without a geographic prefix.
    bedrock_models: tuple[str, ...] = ("anthropic.claude-*",)
    min_tasks: int = 1
    max_tasks: int = 2
    # For so long an answer may send nothing, and a stopping task may go on. More than AGENT_TIMEOUT, which is 120.
    idle_seconds: int = 130

    postgres: str = "18"
    database_class: str = "db.t4g.micro"
    database_gb: int = 20
    database_max_gb: int = 100
    database_connections: int = 80
    multi_az: bool = False
    backup_days: int = 3
    # Keeps the database from being deleted, and leaves a snapshot if it is after all.
    protect: bool = False
    # Whether the database's certificate is checked, with the file db/global-bundle.pem.
    verify_certificate: bool = True

    alarm_email: str = ""
    latency_seconds: int = 60
    log_retention: RetentionDays = RetentionDays.ONE_MONTH

    def check(self) -> None:
        """Check what would only fail while it is being deployed, or later.

        Raises:
            SettingsError: saying what to do.
        """
        where = f"infra/settings.py, {self.environment}"
        if not self.certificate_arn and not (self.domain and self.hosted_zone_id and self.hosted_zone_name):
            raise SettingsError(
                f"{where}: set domain, hosted_zone_id and hosted_zone_name, or certificate_arn. "
                "Callers send their keys, so there is no service without TLS."
            )
        if self.vpc and min(len(self.vpc.public_subnets), len(self.vpc.private_subnets)) < 2:
            raise SettingsError(f"{where}: vpc needs two public and two private subnets, in different zones.")
        if self.verify_certificate and not (WORKSPACE / CERTIFICATE).is_file():
            raise SettingsError(
                f"{CERTIFICATE} isn't there, by which the service knows the database. In the workspace's folder, "
                f"fetch it, then commit it: curl --fail --output {CERTIFICATE} {BUNDLE}"
            )


ENVIRONMENTS = (
    Settings(environment="stg"),
    Settings(
        environment="prd",
        nat_gateways=2,
        min_tasks=2,
        max_tasks=6,
        database_class="db.t4g.medium",
        database_connections=200,
        multi_az=True,
        backup_days=14,
        protect=True,
        log_retention=RetentionDays.THREE_MONTHS,
    ),
)
