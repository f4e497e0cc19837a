"""Every choice of every question gives a workspace that reads as if written by hand."""

import configparser
import json
import re
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.choices import EXTREME, SINGLE, TELLING
from tests.support.command_blocks import broken_links
from tests.support.commands import ROOT, TOOLS, run
from tests.support.workspaces import ODD_ANSWERS, QUESTIONS, Workspace, cookiecutter

# Files that mean something by being there.
MEANT_EMPTY = {"__init__.py", "py.typed", ".gitkeep"}
# ${{ }} is GitHub's, ${ } is Mako's and the shell's; Jinja's marks stand alone.
JINJA = re.compile(r"(?<!\$)\{\{|\{%|(?<!\$)\{#|cookiecutter\.[a-z_]")
# A library's file, with its version in its name, is as its makers have made it.
OF_OTHERS = re.compile(r"chassis/chat/[\w-]+-\d[\d.]*\.js")
# In Python {{ stands for a brace in a text with values in it; Jinja's is followed by a blank or a dash.
JINJA_IN_PYTHON = re.compile(JINJA.pattern.replace(r"\{\{|", r"\{\{[ -]|", 1))


def without_code(markdown: str) -> str:
    """A Markdown text without its blocks of code, and any other text as it is."""
    return re.sub(r"^ *```.*?^ *```", "(code)", markdown, flags=re.MULTILINE | re.DOTALL)


def check_texts(workspace: Workspace) -> None:
    """Nothing of the template's making shows: no Jinja, no empty file, no stray blanks."""
    given = [value for odd in ODD_ANSWERS for value in odd.values() if "{" in value]
    for path in workspace.files():
        name = path.relative_to(workspace.path)
        text = path.read_text(encoding="utf-8")
        if OF_OTHERS.fullmatch(name.as_posix()):
            continue
        if not text:
            assert path.name in MEANT_EMPTY, f"{name} is empty"
            continue
        # Braces of the user's own don't count, however the file's format escapes what is around them.
        plain = text.replace("\\", "")
        for value in given:
            plain = plain.replace(value.replace("\\", ""), "")
        jinja = JINJA_IN_PYTHON if path.suffix == ".py" else JINJA
        assert not jinja.search(plain), f"{name}: {jinja.search(plain)}"
        assert text.endswith("\n"), f"{name} doesn't end with a line end"
        assert not text.endswith("\n\n"), f"{name} ends with blank lines"
        assert not text.startswith("\n"), f"{name} starts with a blank line"
        assert "\r" not in text, name
        assert not re.search(r"[ \t]\n", text), f"{name} has blanks at a line's end"
        most = 3 if path.suffix in {".py", ".mako"} else 2
        assert "\n" * (most + 1) not in without_code(text), f"{name} has a run of blank lines"


def check_formats(workspace: Workspace) -> None:
    """What another program reads is in that program's format."""
    for path in workspace.files():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix == ".json":
            json.loads(text)
        elif path.suffix in {".yaml", ".yml"}:
            assert list(yaml.safe_load_all(text)), path
        elif path.suffix == ".ini":
            configparser.ConfigParser().read_string(text)
        elif path.suffix == ".py":
            compile(text, path, "exec")


def check_style(workspace: Workspace) -> None:
    """Ruff finds nothing to say, with the workspace's own settings."""
    run(TOOLS / "ruff", "check", "--no-cache", ".", cwd=workspace.path)
    run(TOOLS / "ruff", "format", "--no-cache", "--check", ".", cwd=workspace.path)


@pytest.mark.parametrize("answers", TELLING)
def test_telling_choices_bake_clean(bake: Callable[..., Workspace], answers: dict[str, Any]) -> None:
    check_bake(bake, answers)


@pytest.mark.full
@pytest.mark.parametrize("answers", [*SINGLE, *EXTREME])
def test_every_choice_bakes_clean(bake: Callable[..., Workspace], answers: dict[str, Any]) -> None:
    """Every choice of every question that has some, one bake for each, the others at their default."""
    check_bake(bake, answers)


def check_bake(bake: Callable[..., Workspace], answers: dict[str, Any]) -> None:
    workspace = bake(**{name: raw_for_api(value) for name, value in answers.items()})
    check_texts(workspace)
    check_formats(workspace)
    documents = [path for path in workspace.files() if path.suffix == ".md"]
    assert list(broken_links(workspace.path, documents)) == []
    check_style(workspace)
    is_service = answers.get("scope", "service") == "service"
    assert (workspace.path / "infra").exists() is (is_service and answers.get("use_ecs", True))
    assert (workspace.path / ".github").exists() is answers.get("use_github_actions", True)
    assert (workspace.path / ".git").exists() is answers.get("init_git", False)
    assert not (workspace.path / ".venv").exists()


def raw_for_api(value: Any) -> Any:
    """As on the command line: what is handed over is rendered."""
    return "{% raw %}" + value + "{% endraw %}" if isinstance(value, str) and "{" in value else value


@pytest.mark.parametrize("provider", QUESTIONS["model_provider"])
def test_the_default_model_is_of_the_provider_that_was_chosen(
    bake: Callable[..., Workspace], provider: str
) -> None:
    workspace = bake(model_provider=provider)
    assert re.search(
        rf'^DEFAULT_MODEL = "{provider}:[\w.-]+"$', workspace.read("agents/__init__.py"), re.MULTILINE
    )
    packages = tomllib.loads(workspace.read("pyproject.toml"))["project"]["dependencies"]
    assert any(package.startswith(f"pydantic-ai-slim[{provider}]") for package in packages)


# For each licence: what the package's data call it, and words of its text.
LICENCES = {
    "MIT": ("MIT", "Permission is hereby granted, free of charge"),
    "Apache-2.0": ("Apache-2.0", "Apache License"),
    "BSD-3-Clause": ("BSD-3-Clause", "Redistributions in binary form"),
    "Proprietary": ("LicenseRef-Proprietary", "reserved"),
}


@pytest.mark.parametrize("author", ["Agent Team", ODD_ANSWERS[0]["author"]], ids=["plain", "odd"])
@pytest.mark.parametrize("name", QUESTIONS["license"])
def test_licence_is_the_one_of_the_package_and_names_its_holder(
    bake: Callable[..., Workspace], name: str, author: str
) -> None:
    workspace = bake(license=name, author=author)
    project = tomllib.loads(workspace.read("pyproject.toml"))["project"]
    text = workspace.read("LICENSE")
    identifier, words = LICENCES[name]
    assert project["license"] == identifier
    assert words in text
    year = datetime.now(tz=UTC).year
    assert re.search(rf"Copyright (\(c\) )?({year}|{year - 1}) {re.escape(author)}\.?", text)
    assert text == text.strip("\n") + "\n"
    assert not re.search(r"[ \t]$|\n{3}\S", text, re.MULTILINE)


INSTALLED = {
    "odd-anthropic-closed": {
        **ODD_ANSWERS[0],
        "model_provider": "anthropic",
        "license": "Proprietary",
        "use_knowledge": "no",
        "use_chat_page": "no",
        "use_openai_api": "no",
        "use_ecs": "no",
        "use_github_actions": "no",
        "init_git": "no",
    },
    "odd-google-apache": {
        **ODD_ANSWERS[1],
        "model_provider": "google",
        "license": "Apache-2.0",
        "use_ag_ui": "yes",
    },
    "bedrock": {
        "project_slug": "agent-api",
        "model_provider": "bedrock",
        "use_chat_page": "no",
        "use_github_actions": "no",
        "init_git": "no",
    },
}


@pytest.mark.full
@pytest.mark.parametrize("answers", INSTALLED.values(), ids=INSTALLED.keys())
def test_workspace_works_in_full(answers: dict[str, str], tmp_path: Path) -> None:
    """Installed and verified by the hook, then its own tests, style and types, as its owner runs them."""
    outcome = cookiecutter(tmp_path, answers)
    assert outcome.code == 0, outcome.output
    assert "has migrated a real PostgreSQL up, down and up again" in outcome.output
    workspace = Workspace(tmp_path / answers["project_slug"])
    check_texts(workspace)
    check_formats(workspace)
    check_style(workspace)
    workspace.run("ruff", "check", ".")
    workspace.run("ruff", "format", "--check", ".")
    workspace.run("lint-imports", "--no-cache")
    workspace.run("mypy", timeout=600)
    tests = ["tests", *(name for name in OWN_TESTS if workspace.has_file(name))]
    assert re.search(r"\d+ passed", workspace.run("pytest", *tests, timeout=600).output)
    assert not (workspace.path / ".postgres").exists(), "the tests ran on the developer's own database"


# The chassis' tests of what answers bring in or take away. The rest is in tests/workspace/test_checks.py.
OWN_TESTS = [
    f"chassis/tests/test_{name}.py"
    for name in ("ag_ui", "agents", "bedrock", "demonstration", "openapi", "settings")
]


def test_git_repository_starts_with_one_commit_of_everything(installed: Workspace) -> None:
    def git(*arguments: str) -> list[str]:
        return run("git", *arguments, cwd=installed.path).output.splitlines()

    assert git("log", "--format=%an <%ae>") == ["Test <test@example.com>"]
    assert git("status", "--porcelain") == []
    tracked = set(git("-c", "core.quotePath=off", "ls-files"))
    written = {str(path.relative_to(installed.path)) for path in installed.files()}
    assert tracked == written | {"uv.lock", ".cruft.json"}


def test_without_an_identity_git_leaves_the_files_staged(tmp_path: Path) -> None:
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    outcome = cookiecutter(tmp_path, {"install": "no"}, env=nobody)
    assert outcome.code == 0, outcome.output
    assert "git doesn't know you yet" in outcome.output
    assert run("git", "rev-parse", "HEAD", cwd=tmp_path / "agent-api", env=nobody, check=False).code != 0
    staged = run("git", "diff", "--cached", "--name-only", cwd=tmp_path / "agent-api", env=nobody).output
    assert "db/alembic.ini" in staged


def test_without_install_says_what_was_not_checked(tmp_path: Path) -> None:
    outcome = cookiecutter(tmp_path, {"install": "no"})
    assert outcome.code == 0, outcome.output
    assert "NOT checked" in outcome.output
    assert "python -m chassis verify" in outcome.output


def test_hooks_are_valid_for_the_oldest_python_they_run_on(
    bake: Callable[..., Workspace], tmp_path: Path
) -> None:
    """Rendered as Cookiecutter renders them; they may run on a Python older than the workspace's."""
    from cookiecutter.utils import create_env_with_context

    answers = {"project_slug": "agent-api", "install": True, "init_git": True}
    context = {"cookiecutter": answers | {"_extensions": QUESTIONS["_extensions"]}}
    modules = [path.relative_to(ROOT / "hooks").as_posix() for path in (ROOT / "hooks/bake").glob("*.py")]
    (tmp_path / "bake").mkdir()
    assert len(modules) > 1
    for name in ("pre_gen_project.py", "post_gen_project.py", *modules):
        source = (ROOT / "hooks" / name).read_text(encoding="utf-8")
        rendered = tmp_path / name
        rendered.write_text(
            create_env_with_context(context).from_string(source).render(context), encoding="utf-8"
        )
        run(
            TOOLS / "ruff",
            "check",
            "--isolated",
            "--target-version",
            "py310",
            "--select",
            "E9,F,B,UP",
            rendered,
        )
        imported = re.findall(
            r"^(?:import|from) (\w+)", rendered.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        assert set(imported) <= sys.stdlib_module_names | {"bake"}


def test_the_templates_own_python_is_clean() -> None:
    """What `make lint` checks."""
    run(TOOLS / "ruff", "check", "--no-cache", ".")
    run(TOOLS / "ruff", "format", "--no-cache", "--check", ".")
    run(sys.executable, "-m", "mypy")
