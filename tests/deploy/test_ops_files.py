"""Around the app: each file passes the checker of the program that reads it, whatever the answers."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import ROOT, TOOLS, run
from tests.support.workspaces import ODD_ANSWERS, QUESTIONS, Workspace, raw

KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY"}
ANSWERS: list[dict[str, Any]] = [
    {},
    {**ODD_ANSWERS[0], "model_provider": "anthropic", "license": "Proprietary"},
    {**ODD_ANSWERS[1], "model_provider": "google", "license": "Apache-2.0"},
    {"project_slug": "a" * 40, "license": "BSD-3-Clause", "python_version": "3.14"},
]
# https://docs.docker.com/reference/dockerfile/#label: within double quotes a backslash takes away
# what ", \ and $ mean, and stands for itself before anything else.
LABEL = re.compile(r'org\.opencontainers\.image\.([a-z]+)="((?:[^"\\]|\\.)*)"')


@pytest.fixture(params=ANSWERS, ids=["default", "odd-0", "odd-1", "longest"], name="baked", scope="session")
def _baked(
    request: pytest.FixtureRequest, bake: Callable[..., Workspace]
) -> tuple[dict[str, Any], Workspace]:
    return request.param, bake(**{name: raw(value) for name, value in request.param.items()})


def tool(name: str, *arguments: str | Path) -> None:
    run(TOOLS / name, *arguments)


def test_checkers_of_other_programs_find_nothing(baked: tuple[dict[str, Any], Workspace]) -> None:
    path = baked[1].path
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path / "compose.yaml")
    tool("hadolint", "--failure-threshold", "info", path / "Dockerfile")
    tool("shellcheck", path / "scripts/entrypoint.sh")
    assert (path / "scripts/entrypoint.sh").stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize(
    "folder", [ROOT, ROOT / "{{cookiecutter.project_slug}}"], ids=["template", "workspace"]
)
def test_workflows_are_valid_and_safe(folder: Path) -> None:
    """zizmor fails for an action that isn't pinned by commit, a right too many or a kept credential."""
    workflows = sorted((folder / ".github/workflows").glob("*.yml"))
    assert workflows
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    tool("zizmor", "--offline", "--quiet", "--pedantic", *workflows)


def test_workspace_gets_its_workflow_unrendered(baked: tuple[dict[str, Any], Workspace]) -> None:
    name = ".github/workflows/ci.yml"
    assert baked[1].read(name) == (ROOT / "{{cookiecutter.project_slug}}" / name).read_text(encoding="utf-8")


def test_labels_of_the_image_are_the_answers(baked: tuple[dict[str, Any], Workspace]) -> None:
    answers = QUESTIONS | baked[0]
    written = dict(LABEL.findall(baked[1].read("Dockerfile")))
    for value in written.values():
        assert "$" not in re.sub(r"\\.", "", value), "Docker would put a variable's value there"
    spdx = baked[0].get("license", "MIT").replace("Proprietary", "LicenseRef-Proprietary")
    assert {name: re.sub(r'\\(["\\$])', r"\1", value) for name, value in written.items()} == {
        "title": answers["project_name"],
        "description": answers["description"],
        "authors": f"{answers['author']} <{answers['email']}>",
        "licenses": spdx,
    }


def test_names_of_containers_and_cluster_follow_the_slug(baked: tuple[dict[str, Any], Workspace]) -> None:
    answers, workspace = baked
    slug = workspace.path.name
    name = slug.removesuffix("-api")
    compose = yaml.safe_load(workspace.read("compose.yaml"))
    assert set(compose["services"]) == {slug, f"{name}-db"}
    service, database = compose["services"][slug], compose["services"][f"{name}-db"]
    assert service["container_name"] == slug
    assert service["build"]["target"] == "dev"
    settings, server = service["environment"], database["environment"]
    assert (settings["DB_HOST"], settings["DB_DATABASE"]) == (f"{name}-db", slug.replace("-", "_"))
    assert [settings[f"DB_{part}"] for part in ("USER", "PASS", "DATABASE")] == [
        server[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB")
    ]
    for port in [*service["ports"], *database["ports"]]:
        assert port.startswith("127.0.0.1:"), "reachable from other machines"

    names = runpy.run_path(str(workspace.path / "infra/names.py"))
    production = names["Names"].of("prd")
    assert (production.cluster, production.container) == (f"prd-{name}-cluster", f"prd-{slug}")
    assert (names["SLUG"], names["DATABASE"]) == (slug, settings["DB_DATABASE"])
    assert names["MODEL_KEY"] == KEYS[answers.get("model_provider", "openai")]
    assert f"# {names['MODEL_KEY']}=" in workspace.read("example.env").splitlines()


def test_example_env_explains_every_variable_that_is_read(baked: tuple[dict[str, Any], Workspace]) -> None:
    answers, workspace = baked
    python = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("agents", "api", "chassis", "db")
        for path in (workspace.path / folder).rglob("*.py")
        if not {"testing", "tests"} & set(path.relative_to(workspace.path).parts)
    )
    read = set(re.findall(r'\b(?:env|environ)(?:\.get\(|\[)"([A-Z][A-Z_]+)"', python))
    read |= set(re.findall(r'alias="([A-Z][A-Z_]+)"', python))
    settings = workspace.read("chassis/agents/settings.py")
    read |= {
        f"AGENT_{name.upper()}" for name in re.findall(r"^    (\w+): .+ = Field", settings, re.MULTILINE)
    }
    for name in ("scripts/entrypoint.sh", "compose.yaml"):
        read |= set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", workspace.read(name)))
    assert {"DATABASE_URL", "DB_PASS", "API_KEYS_REQUIRED", "AGENT_MODEL", "MIGRATE_DB", "DEV_UID"} <= read
    told = re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", workspace.read("example.env"), re.MULTILINE)
    # Those of the XDG specification are the system's, not the service's; UV is set by uv for what it runs.
    others = {name for name in read if name.startswith("XDG_")} | {"UV"}
    if answers.get("model_provider") != "bedrock":
        others.add("AWS_REGION")
    assert read - others <= set(told)
    assert len(told) == len(set(told))


def test_no_secret_has_a_value(baked: tuple[dict[str, Any], Workspace]) -> None:
    secret = re.compile(r"^.*(?:_KEY|_PASS|_TOKEN|_URL)=.+$", re.MULTILINE)
    assert not secret.findall(baked[1].read("example.env"))
