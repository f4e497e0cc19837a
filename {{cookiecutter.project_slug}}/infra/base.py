"""What stays from version to version: the network, the database and the secrets."""

import json

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from nag import accept
from names import DATABASE, Names
from network import make_network
from settings import Settings

PORT = 5432


class Base(Stack):
    """Network, database and secrets of one environment."""

    def __init__(self, scope: Construct, names: Names, settings: Settings) -> None:
        """Describe them."""
        super().__init__(
            scope, names.base_stack, env={"region": settings.region}, termination_protection=settings.protect
        )
        self.vpc = make_network(self, settings)
        self.database_group = ec2.SecurityGroup(
            self, "DatabaseGroup", vpc=self.vpc, description="The database"
        )
        self.database = self._database(names, settings)
        network = {
            "subnets": [subnet.subnet_id for subnet in self.vpc.private_subnets],
            "securityGroups": [self.let_in(self, "Tasks that run once").security_group_id],
            "assignPublicIp": "DISABLED",
        }
        CfnOutput(
            self,
            "Network",
            description="For aws ecs run-task --network-configuration",
            value=self.to_json_string({"awsvpcConfiguration": network}),
        )
        # RDS makes the administrator's password itself, and replaces it every seven days.
        self.admin_secret = secretsmanager.Secret.from_secret_complete_arn(
            self, "Admin", self.database.attr_master_user_secret_secret_arn
        )
        self.app_secret = self._login(names.app_secret, "app")
        self.migrator_secret = self._login(names.migrator_secret, "migrator")
        # Made with a random value; the real key comes in by hand and is in no file.
        self.model_key_secret = secretsmanager.Secret(self, "ModelKey", secret_name=names.model_key_secret)
        accept(self.model_key_secret, {"SMG4": "The provider of the models gives out the key; see Rotate secrets."})

    def let_in(self, stack: Stack, description: str) -> ec2.SecurityGroup:
        """Return a security group in `stack`, from which the database can be reached."""
        group = ec2.SecurityGroup(stack, "Group", vpc=self.vpc, description=description)
        # The rule belongs to that stack, so that this one knows nothing of those that come after it.
        ec2.CfnSecurityGroupIngress(
            stack,
            "DatabaseIngress",
            group_id=self.database_group.security_group_id,
            source_security_group_id=group.security_group_id,
            ip_protocol="tcp",
            from_port=PORT,
            to_port=PORT,
            description=description,
        )
        return group

    def _login(self, name: str, role: str) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            role.capitalize(),
            secret_name=name,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"username": role}),
                generate_string_key="password",
                password_length=40,
                exclude_punctuation=True,
            ),
        )
        accept(secret, {"SMG4": "Replaced by a command and the roles task, without a function; see Rotate secrets."})
        return secret

    def _database(self, names: Names, settings: Settings) -> rds.CfnDBInstance:
        # With this name RDS writes its log there, instead of into a group that is kept for ever.
        log = logs.LogGroup(
            self,
            "DatabaseLog",
            log_group_name=f"/aws/rds/instance/{names.database}/postgresql",
            retention=settings.log_retention,
            removal_policy=RemovalPolicy.DESTROY,
        )
        parameters = rds.CfnDBParameterGroup(
            self,
            "DatabaseParameters",
            description=names.database,
            family=f"postgres{settings.postgres.partition('.')[0]}",
            parameters={
                "rds.force_ssl": "1",
                "max_connections": str(settings.database_connections),
                "log_min_duration_statement": "1000",
                # Passwords are in statements, though only as hashes.
                "log_statement": "none",
            },
        )
        subnets = rds.CfnDBSubnetGroup(
            self,
            "DatabaseSubnets",
            db_subnet_group_description=names.database,
            subnet_ids=[subnet.subnet_id for subnet in self.vpc.private_subnets],
        )
        database = rds.CfnDBInstance(
            self,
            "Database",
            db_instance_identifier=names.database,
            engine="postgres",
            # Minor versions come by themselves in the window for maintenance. A major one is set here, and meant.
            engine_version=settings.postgres,
            auto_minor_version_upgrade=True,
            allow_major_version_upgrade=True,
            db_instance_class=settings.database_class,
            storage_type="gp3",
            allocated_storage=str(settings.database_gb),
            max_allocated_storage=settings.database_max_gb,
            storage_encrypted=True,
            multi_az=settings.multi_az,
            db_name=DATABASE,
            master_username="administrator",
            manage_master_user_password=True,
            db_parameter_group_name=parameters.ref,
            db_subnet_group_name=subnets.ref,
            vpc_security_groups=[self.database_group.security_group_id],
            publicly_accessible=False,
            backup_retention_period=settings.backup_days,
            copy_tags_to_snapshot=True,
            delete_automated_backups=not settings.protect,
            deletion_protection=settings.protect,
            enable_cloudwatch_logs_exports=["postgresql"],
        )
        database.apply_removal_policy(RemovalPolicy.SNAPSHOT if settings.protect else RemovalPolicy.DESTROY)
        database.node.add_dependency(log)
        accept(database, {"RDS11": "The port is known anyway. The security group and TLS keep strangers away."})
        if not settings.multi_az:
            accept(database, {"RDS3": "Chosen in settings.py: this environment may stand still for some minutes."})
        if not settings.protect:
            accept(database, {"RDS10": "Chosen in settings.py: this environment can be made anew."})
        return database
