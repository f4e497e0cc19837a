"""People sign in on a workspace's page with a certified OpenID provider from npm, through its own forms."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.servers import missing, npm_install
from tests.support.workspaces import Workspace

PACKAGE = "oidc-provider@9.13.3"
SUPPORT = ROOT / "tests/support"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the provider, and the package it imports."""
    folder = tmp_path_factory.mktemp("provider")
    npm_install(folder, PACKAGE)
    shutil.copy(SUPPORT / "openid_provider.mjs", folder)
    return folder


@pytest.mark.full
def test_people_sign_in_with_a_real_provider(ready: Callable[..., Workspace], provider: Path) -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        missing("chromium")
    workspace = ready()
    shutil.copy(SUPPORT / "in_workspace/sign_in.py", workspace.path / "chassis/tests/test_sign_in.py")
    environment = {"PROVIDER_FOLDER": str(provider)}
    printed = workspace.run(
        "python", "-m", "pytest", "chassis/tests/test_sign_in.py", env=environment, timeout=600
    ).output
    assert "2 passed" in printed, printed
