"""What stays from version to version: the network, the database and the secrets."""

import json

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from database import PORT, make_database
from nag import accept
from names import MODEL_KEY, Names
from network import make_network
from settings import Settings


class Base(Stack):
    """Network, database and secrets of one environment."""

    def __init__(self, scope: Construct, names: Names, settings: Settings) -> None:
        """Describe them."""
        super().__init__(scope, names.base_stack, env={"region": settings.region})
        self.vpc = make_network(self, settings)
        self.database_group = ec2.SecurityGroup(
            self, "DatabaseGroup", vpc=self.vpc, description="The database"
        )
        self.database = make_database(self, names, settings, self.vpc, self.database_group)
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
        self.model_key_secret = (
            secretsmanager.Secret(self, "ModelKey", secret_name=names.model_key_secret) if MODEL_KEY else None
        )
        for secret in filter(None, (self.app_secret, self.migrator_secret, self.model_key_secret)):
            accept(
                secret, {"SMG4": "Replaced by commands, not by a function: see Rotate secrets in README.md."}
            )
            if settings.protect:
                # But for a first deployment that fails: it can be repeated.
                secret.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)

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
        generated = secretsmanager.SecretStringGenerator(
            secret_string_template=json.dumps({"username": role}),
            generate_string_key="password",
            password_length=40,
            exclude_punctuation=True,
        )
        return secretsmanager.Secret(
            self, role.capitalize(), secret_name=name, generate_secret_string=generated
        )
