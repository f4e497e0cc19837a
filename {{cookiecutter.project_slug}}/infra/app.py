"""Write the CloudFormation templates of all stacks to cdk.out: ``python app.py``."""

import sys
from collections.abc import Iterable

from aws_cdk import App, BootstraplessSynthesizer, Stack, Tags, Validations
from aws_cdk import aws_ecr as ecr
from cdk_nag import AwsSolutionsChecks

from base import Base
from names import REGISTRY_STACK, REPOSITORY, SLUG, Names
from service import Service
from settings import ENVIRONMENTS, Settings, SettingsError
from tasks import Tasks


def make_app(environments: Iterable[Settings], output: str) -> App:
    """Return the app with the stacks of all environments.

    Raises:
        SettingsError: where a setting is missing or wrong.
    """
    app = App(
        outdir=output,
        analytics_reporting=False,
        # Nothing but templates is deployed, so no account needs to be prepared for the CDK.
        default_stack_synthesizer=BootstraplessSynthesizer(),
    )
    Tags.of(app).add("service", SLUG)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # All environments of an account share the registry, so that they run the very same images.
    ecr.Repository(
        Stack(app, REGISTRY_STACK),
        "Repository",
        repository_name=REPOSITORY,
        image_scan_on_push=True,
        image_tag_mutability=ecr.TagMutability.IMMUTABLE,
        # Those that serve must be among them, and each push to main adds one.
        lifecycle_rules=[ecr.LifecycleRule(max_image_count=500)],
    )
    for settings in environments:
        settings.check()
        names = Names.of(settings.environment)
        base = Base(app, names, settings)
        tasks = Tasks(app, names, settings, base)
        for stack in (base, tasks, Service(app, names, settings, base, tasks)):
            Tags.of(stack).add("environment", settings.environment)
    return app


if __name__ == "__main__":
    try:
        make_app(ENVIRONMENTS, "cdk.out").synth()
    except SettingsError as error:
        sys.exit(str(error))
    except RuntimeError as error:
        # The report above says what is wrong and where. A traceback through the CDK adds nothing.
        if "ValidationFailed" not in str(error):
            raise
        sys.exit(1)
