"""The right to ask models on AWS Bedrock, by the task's role: there is no key."""

from aws_cdk import Fn
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam

from nag import accept
from settings import Settings

PARTITION, ACCOUNT = "${AWS::Partition}", "${AWS::AccountId}"
ACTIONS = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
REASON = (
    "A profile passes questions on to models in other regions, and new versions of a model have other ids."
)


def allow_models(task: ecs.TaskDefinition, settings: Settings) -> None:
    """Let the service ask the models of the settings, here and where an inference profile passes its questions on.

    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-prereq.html
    """
    for model in settings.bedrock_models:
        for resource in (
            f"arn:{PARTITION}:bedrock:*::foundation-model/{model}",
            f"arn:{PARTITION}:bedrock:{settings.region}:{ACCOUNT}:inference-profile/*.{model}",
        ):
            statement = iam.PolicyStatement(actions=ACTIONS, resources=[Fn.sub(resource)])
            task.add_to_task_role_policy(statement)
            # As cdk-nag writes what is known once it is deployed.
            found = resource.replace("${", "<").replace("}", ">")
            accept(task.task_role, {f"IAM5[Resource::{found}]": REASON})
