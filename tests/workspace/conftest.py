"""Workspaces in which everything can be run, without an installation for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import UV, run
from tests.support.once import Once
from tests.support.workspaces import Workspace, cookiecutter


@pytest.fixture(scope="session")
def packages_of_all(once: Once) -> Path:
    """An environment with what any answer brings, for workspaces that are baked without installing."""

    def make(folder: Path) -> None:
        answers = {"use_ag_ui": "yes", "use_prometheus": "yes", "install": "no", "init_git": "no"}
        outcome = cookiecutter(folder, answers)
        assert outcome.code == 0, outcome.output
        workspace = folder / "agent-api"
        run(UV, "sync", "--quiet", "--all-groups", cwd=workspace)
        python = ("--python", workspace / ".venv/bin/python")
        # Buckets are read by what a team adds itself.
        more = ("pydantic-ai-slim[anthropic,bedrock,google]", "obstore", "moto[s3,server]")
        run(UV, "pip", "install", "--quiet", *python, *more, cwd=workspace)

    return once.folder("packages-of-all", make) / "agent-api/.venv"


@pytest.fixture
def ready(bake: Callable[..., Workspace], packages_of_all: Path) -> Callable[..., Workspace]:
    """Bake with the given answers a workspace in which everything can be run."""

    def ready(**answers: Any) -> Workspace:
        workspace = bake(**answers)
        (workspace.path / ".venv").symlink_to(packages_of_all)
        return workspace

    return ready
