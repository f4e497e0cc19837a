"""Alarms: on errors, waiting, load, and a database that runs out of room or connections."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ecs_patterns as patterns
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions

from names import Names
from settings import Settings

ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
MISSING = cloudwatch.TreatMissingData


def add_alarms(
    stack: Stack, names: Names, settings: Settings, served: patterns.ApplicationLoadBalancedFargateService
) -> None:
    """Add the alarms, and the topic that they are told to."""
    action = actions.SnsAction(_topic(stack, settings))
    target, balancer, service = served.target_group.metrics, served.load_balancer.metrics, served.service

    def rds(metric: str) -> cloudwatch.Metric:
        dimensions = {"DBInstanceIdentifier": names.database}
        return cloudwatch.Metric(namespace="AWS/RDS", metric_name=metric, dimensions_map=dimensions)

    # RDS makes a disk larger when less than a tenth is free, so below a twentieth it couldn't.
    least_storage = settings.database_gb * 2**30 / 20
    # The last figure: for how many periods of five minutes.
    for name, metric, comparison, threshold, periods in (
        ("ServiceErrors", target.http_code_target(elb.HttpCodeTarget.TARGET_5XX_COUNT), ABOVE, 5, 1),
        ("BalancerErrors", balancer.http_code_elb(elb.HttpCodeElb.ELB_5XX_COUNT), ABOVE, 5, 1),
        ("NoTaskReady", target.healthy_host_count(statistic="Minimum"), BELOW, 1, 1),
        ("Latency", target.target_response_time(statistic="p95"), ABOVE, settings.latency_seconds, 3),
        ("ServiceCpu", service.metric_cpu_utilization(), ABOVE, 85, 3),
        ("ServiceMemory", service.metric_memory_utilization(), ABOVE, 85, 3),
        ("DatabaseCpu", rds("CPUUtilization"), ABOVE, 85, 3),
        ("DatabaseStorage", rds("FreeStorageSpace"), BELOW, least_storage, 1),
        ("DatabaseConnections", rds("DatabaseConnections"), ABOVE, settings.database_connections * 0.8, 1),
    ):
        alarm = cloudwatch.Alarm(
            stack,
            name,
            alarm_name=f"{names.service}-{name}",
            metric=metric.with_(period=Duration.minutes(5)),
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=periods,
            # To hear of no errors is good news. To hear of no tasks, or of no room, isn't.
            treat_missing_data=MISSING.NOT_BREACHING if comparison is ABOVE else MISSING.BREACHING,
        )
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)


def _topic(stack: Stack, settings: Settings) -> sns.Topic:
    topic = sns.Topic(stack, "Alarms", enforce_ssl=True)
    # With a policy of its own, the topic is no longer open to the account's alarms by itself.
    publish = iam.PolicyStatement(
        actions=["sns:Publish"],
        resources=[topic.topic_arn],
        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
    )
    topic.add_to_resource_policy(publish)
    if settings.alarm_email:
        topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
    return topic
