"""The cluster, and the tasks that run once: they migrate, and make the database's roles."""

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from base import Base
from container import image_parameter, login, make_task
from nag import accept
from names import Names
from settings import Settings


class Tasks(Stack):
    """The cluster with its log, and the tasks that run once."""

    def __init__(self, scope: Construct, names: Names, settings: Settings, base: Base) -> None:
        """Describe them."""
        super().__init__(scope, names.tasks_stack, env={"region": settings.region})
        # To log a session, the task would need more rights. CloudTrail has who opened one.
        no_log = ecs.ExecuteCommandConfiguration(logging=ecs.ExecuteCommandLogging.NONE)
        self.cluster = ecs.Cluster(
            self, "Cluster", cluster_name=names.cluster, vpc=base.vpc, execute_command_configuration=no_log
        )
        accept(self.cluster, {"ECS4": "The metrics that the alarms need are free of charge. These are not."})
        self.log = logs.LogGroup(
            self,
            "Log",
            log_group_name=names.log_group,
            retention=settings.log_retention,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            if settings.protect
            else RemovalPolicy.DESTROY,
        )
        image = image_parameter(self)
        migrator = login(base.migrator_secret)
        upgrade = ["alembic", "-c", "db/alembic.ini", "upgrade", "head"]
        make_task(
            self,
            names.migrate_task,
            base,
            settings,
            image=image,
            log=self.log,
            secrets=migrator,
            command=upgrade,
        )
        everybody = {
            **login(base.app_secret),
            **login(base.migrator_secret, "MIGRATE_DB"),
            **login(base.admin_secret, "ADMIN_DB"),
        }
        roles = ["python", "-m", "chassis", "roles"]
        make_task(
            self,
            names.roles_task,
            base,
            settings,
            image=image,
            log=self.log,
            secrets=everybody,
            command=roles,
        )
