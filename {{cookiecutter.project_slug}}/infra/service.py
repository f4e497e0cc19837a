"""The service behind its load balancer, and how many tasks it has."""

from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_ecs_patterns as patterns
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_s3 as s3
from constructs import Construct

from alarms import add_alarms
from base import Base
from bedrock import allow_models
from container import image_parameter, login, make_task
from nag import accept
from names import MODEL_KEY, Names
from settings import Settings
from tasks import Tasks

PORT = 8000


class Service(Stack):
    """The service of one environment."""

    def __init__(self, scope: Construct, names: Names, settings: Settings, base: Base, tasks: Tasks) -> None:
        """Describe it."""
        super().__init__(scope, names.service_stack, env={"region": settings.region})
        served = patterns.ApplicationLoadBalancedFargateService(
            self,
            "Service",
            service_name=names.service,
            cluster=tasks.cluster,
            task_definition=self._task(names, settings, base, tasks),
            security_groups=[base.let_in(self, "Tasks of the service")],
            task_subnets=ec2.SubnetSelection(subnets=base.vpc.private_subnets),
            # Gives the task's role the four ssmmessages actions. No more, since nothing is logged.
            enable_execute_command=settings.execute_command,
            circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
            min_healthy_percent=100,
            max_healthy_percent=200,
            health_check_grace_period=Duration.seconds(
                settings.migrate_seconds if settings.migrate == "start" else 60
            ),
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            protocol=elb.ApplicationProtocol.HTTPS,
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            redirect_http=True,
            idle_timeout=Duration.seconds(settings.idle_seconds),
            **self._address(settings),
        )
        accept(served, {"EC23": "The service is public. Its callers show a key."})
        self._configure(settings, served)
        tasks_count = served.service.auto_scale_task_count(
            min_capacity=settings.min_tasks, max_capacity=settings.max_tasks
        )
        tasks_count.scale_on_cpu_utilization("Cpu", target_utilization_percent=60)
        # Runs that wait for a slow model take no CPU, and take the task's places all the same.
        runs = logs.MetricFilter(
            self,
            "Runs",
            log_group=tasks.log,
            filter_pattern=logs.FilterPattern.number_value("$.runs_percent", ">=", 0),
            metric_namespace=names.service,
            metric_name="RunsPercent",
            metric_value="$.runs_percent",
        )
        tasks_count.scale_to_track_custom_metric(
            "RunsUnderway", metric=runs.metric(statistic="Average"), target_value=60
        )
        add_alarms(self, names, settings, served)

    def _task(self, names: Names, settings: Settings, base: Base, tasks: Tasks) -> ecs.FargateTaskDefinition:
        secrets = login(base.app_secret)
        if base.model_key_secret:
            secrets[MODEL_KEY] = ecs.Secret.from_secrets_manager(base.model_key_secret)
        if settings.migrate == "start":
            secrets |= login(base.migrator_secret, "MIGRATE_DB")
        task = make_task(
            self,
            names.service,
            base,
            settings,
            image=image_parameter(self),
            log=tasks.log,
            secrets=secrets,
            environment={
                **({} if MODEL_KEY else {"AWS_REGION": settings.region}),
                "WAIT_FOR_DB": "True",
                "WAIT_FOR_DB_TIMEOUT": "300",
                "MIGRATE_DB": str(settings.migrate == "start"),
                # A new version migrates while the last one serves, and may be rolled back to that one. Both
                # ask that it bears a database that is ahead of it, so write revisions by expand and contract.
                "MIGRATE_WHEN_AHEAD": "start",
                # Only the load balancer reaches the tasks. It must not be the one that keeps connections longer.
                "FORWARDED_ALLOW_IPS": "*",
                "UVICORN_TIMEOUT_KEEP_ALIVE": str(settings.idle_seconds + 15),
            },
            # The agent behind execute-command must write, so the two exclude each other:
            # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html
            read_only=not settings.execute_command,
            port_mappings=[ecs.PortMapping(container_port=PORT)],
            # ECS doesn't look at the image's own HEALTHCHECK.
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "scripts/healthcheck.py"],
                interval=Duration.seconds(10),
                start_period=Duration.seconds(300),
            ),
            stop_timeout=Duration.seconds(30),
        )
        if not MODEL_KEY:
            allow_models(task, settings)
        return task

    def _address(self, settings: Settings) -> dict[str, Any]:
        if settings.certificate_arn:
            certificate = acm.Certificate.from_certificate_arn(self, "Certificate", settings.certificate_arn)
            return {"certificate": certificate}
        zone = route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=settings.hosted_zone_id, zone_name=settings.hosted_zone_name
        )
        return {"domain_name": settings.domain, "domain_zone": zone}

    def _configure(self, settings: Settings, served: patterns.ApplicationLoadBalancedFargateService) -> None:
        served.target_group.configure_health_check(
            path="/ready",
            # No task gets better by being replaced while the database moves to another zone, which takes a minute or two.
            interval=Duration.seconds(15),
            healthy_threshold_count=2,
            unhealthy_threshold_count=10,
        )
        # Tasks that stop may finish the answers that they have begun.
        served.target_group.set_attribute("deregistration_delay.timeout_seconds", str(settings.idle_seconds))
        served.load_balancer.set_attribute("routing.http.drop_invalid_header_fields.enabled", "true")
        served.load_balancer.set_attribute("deletion_protection.enabled", str(settings.protect).lower())
        requests = s3.Bucket(
            self,
            "Requests",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(30))],
        )
        accept(requests, {"S1": "This is a log. A log of who reads it would need one of its own."})
        served.load_balancer.log_access_logs(requests)
