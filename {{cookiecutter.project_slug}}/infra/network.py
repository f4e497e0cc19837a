"""The network: one of its own, or one that is there already."""

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from settings import ExistingVpc, Settings


def make_network(scope: Construct, settings: Settings) -> ec2.IVpc:
    """Return the network of the settings, made if they don't name one."""
    if settings.vpc:
        return _existing(scope, settings.vpc)
    vpc = ec2.Vpc(
        scope,
        "Vpc",
        max_azs=2,
        nat_gateways=settings.nat_gateways,
        subnet_configuration=[
            ec2.SubnetConfiguration(
                name="public", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False
            ),
            ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        ],
    )
    # What was refused is worth its price to whoever looks for an intruder or a missing rule.
    log = logs.LogGroup(
        scope, "Rejected", retention=settings.log_retention, removal_policy=RemovalPolicy.DESTROY
    )
    vpc.add_flow_log(
        "Rejected",
        destination=ec2.FlowLogDestination.to_cloud_watch_logs(log),
        traffic_type=ec2.FlowLogTrafficType.REJECT,
    )
    # Free of charge, and the layers of images then don't go through the NAT gateway, which isn't.
    vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
    return vpc


def _existing(scope: Construct, vpc: ExistingVpc) -> ec2.IVpc:
    # Zones are counted, not used: nothing here asks in which one a subnet lies.
    zones = [f"zone-{number}" for number in range(len(vpc.private_subnets))]
    return ec2.Vpc.from_vpc_attributes(
        scope,
        "Vpc",
        vpc_id=vpc.id,
        availability_zones=zones,
        public_subnet_ids=list(vpc.public_subnets),
        private_subnet_ids=list(vpc.private_subnets),
    )
