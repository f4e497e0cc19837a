"""Every name in AWS, in one place: the stacks, the commands in the documents and the scripts go by it.

``python names.py prd`` prints them for a shell.
"""

import sys
from dataclasses import asdict, dataclass

SLUG = "{{ cookiecutter.project_slug }}"
WORKSPACE = "{{ cookiecutter.__workspace }}"
DATABASE = "{{ cookiecutter.__database }}"
# Empty where Bedrock's models answer, which the task's role may ask.
MODEL_KEY = "{{ '' if cookiecutter.model_provider == 'bedrock' else cookiecutter.__model_key }}"

# What the registry of images and its stack are called. All environments run images from there.
REPOSITORY = SLUG
REGISTRY_STACK = f"{SLUG}-registry"
# What the workflow that delivers may do, see delivery.yaml.
DELIVERY_STACK = f"{SLUG}-delivery"


@dataclass(frozen=True)
class Names:
    """The names of one environment."""

    base_stack: str
    tasks_stack: str
    service_stack: str
    cluster: str
    service: str
    container: str
    migrate_task: str
    roles_task: str
    database: str
    log_group: str
    app_secret: str
    migrator_secret: str
    model_key_secret: str

    @classmethod
    def of(cls, environment: str) -> "Names":
        """Return the names of an environment, ``stg`` or ``prd``."""
        own = f"{environment}-{SLUG}"
        return cls(
            base_stack=f"{own}-base",
            tasks_stack=f"{own}-tasks",
            service_stack=own,
            cluster=f"{environment}-{WORKSPACE}-cluster",
            service=own,
            container=own,
            migrate_task=f"{own}-migrate",
            roles_task=f"{own}-roles",
            database=own,
            log_group=f"/ecs/{own}",
            app_secret=f"{own}/database-app",
            migrator_secret=f"{own}/database-migrator",
            model_key_secret=f"{own}/model-key",
        )


if __name__ == "__main__":
    shared = {"repository": REPOSITORY, "registry_stack": REGISTRY_STACK, "delivery_stack": DELIVERY_STACK}
    for name, value in {**shared, **asdict(Names.of(sys.argv[1]))}.items():
        print(f"{name.upper()}={value}")
