"""The database: RDS PostgreSQL, encrypted, backed up, and out of everybody's reach but the tasks'."""

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds

from nag import accept
from names import DATABASE, Names
from settings import Settings

PORT = 5432


def make_database(
    stack: Stack, names: Names, settings: Settings, vpc: ec2.IVpc, group: ec2.SecurityGroup
) -> rds.CfnDBInstance:
    """Return the database, in the private subnets of the network and behind the security group."""
    # With this name RDS writes its log there, instead of into a group that is kept for ever.
    log = logs.LogGroup(
        stack,
        "DatabaseLog",
        log_group_name=f"/aws/rds/instance/{names.database}/postgresql",
        retention=settings.log_retention,
        removal_policy=RemovalPolicy.DESTROY,
    )
    parameters = rds.CfnDBParameterGroup(
        stack,
        "DatabaseParameters",
        description=names.database,
        family=f"postgres{settings.postgres.partition('.')[0]}",
        parameters={
            "rds.force_ssl": "1",
            "max_connections": str(settings.database_connections),
            # Passwords are in statements, though only as hashes. Slow ones aren't logged either, as PostgreSQL adds
            # their values, which are users' words: pg_stat_statements, which RDS loads, tells them without.
            "log_statement": "none",
        },
    )
    subnets = rds.CfnDBSubnetGroup(
        stack,
        "DatabaseSubnets",
        db_subnet_group_description=names.database,
        subnet_ids=[subnet.subnet_id for subnet in vpc.private_subnets],
    )
    database = rds.CfnDBInstance(
        stack,
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
        vpc_security_groups=[group.security_group_id],
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
        accept(
            database,
            {"RDS3": "Chosen in settings.py: this environment may stand still for some minutes."},
        )
    if not settings.protect:
        accept(database, {"RDS10": "Chosen in settings.py: this environment can be made anew."})
    return database
