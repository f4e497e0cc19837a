"""Every choice of every question gives a workspace that reads as if written by hand."""

import configparser
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ODD_ANSWERS, QUESTIONS, TOOLS, UV, Workspace, cookiecutter, run

PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# Files that mean something by being there.
MEANT_EMPTY = {"__init__.py", "py.typed", ".gitkeep"}
# ${{ }} is GitHub's, ${ } is Mako's and the shell's; Jinja's marks stand alone.
JINJA = re.compile(r"(?<!\$)\{\{|\{%|(?<!\$)\{#|cookiecutter\.[a-z_]")


def choices() -> Iterator[Any]:
    """Every choice of every question that has some, one bake for each, the others at their default."""
    yield pytest.param({}, id="default")
    offered = {"python_version": list(PYTHON_VERSIONS)} | {
        name: [True, False] if isinstance(default, bool) else default
        for name, default in QUESTIONS.items()
        if not name.startswith("_") and isinstance(default, (bool, list))
    }
    for name, values in offered.items():
        for value in values:
            if name != "install":
                yield pytest.param({name: value}, id=f"{name}={value}")


ALL_ANSWERS = [
    *choices(),
    *(pytest.param(answers, id=f"odd-{number}") for number, answers in enumerate(ODD_ANSWERS)),
    pytest.param({name: False for name in QUESTIONS if name.startswith("use_")}, id="bare"),
    pytest.param(
        {"project_slug": "a" * 40, "project_name": "N" * 100, "description": "D" * 300}, id="longest"
    ),
    pytest.param(
        {"project_slug": "ai", "project_name": "A", "description": "d", "author": "a"}, id="shortest"
    ),
]


def without_code(markdown: str) -> str:
    """A Markdown text without its blocks of code, and any other text as it is."""
    return re.sub(r"^ *```.*?^ *```", "(code)", markdown, flags=re.MULTILINE | re.DOTALL)


def check_texts(workspace: Workspace) -> None:
    """Nothing of the template's making shows: no Jinja, no empty file, no stray blanks."""
    given = [value for odd in ODD_ANSWERS for value in odd.values() if "{" in value]
    for path in workspace.files():
        name = path.relative_to(workspace.path)
        text = path.read_text(encoding="utf-8")
        if not text:
            assert path.name in MEANT_EMPTY, f"{name} is empty"
            continue
        # Braces of the user's own don't count, however the file's format escapes what is around them.
        plain = text.replace("\\", "")
        for value in given:
            plain = plain.replace(value.replace("\\", ""), "")
        assert not JINJA.search(plain), f"{name}: {JINJA.search(plain)}"
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


def check_links(workspace: Workspace) -> None:
    """No relative link in a Markdown file leads nowhere."""
    for path in workspace.files():
        if path.suffix == ".md":
            text = without_code(path.read_text(encoding="utf-8"))
            for link in re.findall(r"(?<!\\)\]\(([^)\s]+)\)", text):
                if not re.match(r"[a-z]+:|#", link):
                    assert (path.parent / link.partition("#")[0]).exists(), f"{path.name}: {link}"


def check_style(workspace: Workspace) -> None:
    """Ruff finds nothing to say, with the workspace's own settings."""
    run(TOOLS / "ruff", "check", "--no-cache", ".", cwd=workspace.path)
    run(TOOLS / "ruff", "format", "--no-cache", "--check", ".", cwd=workspace.path)


@pytest.mark.parametrize("answers", ALL_ANSWERS)
def test_every_choice_bakes_clean(bake: Callable[..., Workspace], answers: dict[str, Any]) -> None:
    workspace = bake(**{name: raw_for_api(value) for name, value in answers.items()})
    check_texts(workspace)
    check_formats(workspace)
    check_links(workspace)
    check_style(workspace)
    assert (workspace.path / "infra").exists() is answers.get("use_ecs", True)
    assert (workspace.path / ".github").exists() is answers.get("use_github_actions", True)
    assert (workspace.path / ".git").exists() is answers.get("init_git", False)
    assert not (workspace.path / ".venv").exists()


def raw_for_api(value: Any) -> Any:
    """As on the command line: what is handed over is rendered."""
    return "{% raw %}" + value + "{% endraw %}" if isinstance(value, str) and "{" in value else value


@pytest.mark.parametrize("license_name", QUESTIONS["license"])
def test_licence_text_and_package_data_name_the_same_licence(
    bake: Callable[..., Workspace], license_name: str
) -> None:
    workspace = bake(license=license_name, author="Ada & Söhne")
    project = tomllib.loads(workspace.read("pyproject.toml"))["project"]
    text = workspace.read("LICENSE")
    marks = {
        "MIT": ("MIT", "Permission is hereby granted, free of charge"),
        "Apache-2.0": ("Apache-2.0", "Apache License"),
        "BSD-3-Clause": ("BSD-3-Clause", "Redistributions in binary form"),
        "Proprietary": ("LicenseRef-Proprietary", "reserved"),
    }
    identifier, phrase = marks[license_name]
    assert project["license"] == identifier
    assert phrase in text
    assert "Ada & Söhne" in text


# The tests of what answers bring in or take away.
OWN_TESTS = [
    f"tests/test_{name}.py" for name in ("ag_ui", "agents", "demonstration", "migrations", "settings")
]

FULL = {
    "default": {},
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
}


@pytest.mark.parametrize("answers", FULL.values(), ids=FULL.keys())
def test_workspace_works_in_full(answers: dict[str, str], installed: Workspace, tmp_path: Path) -> None:
    """Installed and verified by the hook, then its own tests, style and types, as its owner runs them."""
    if answers:
        outcome = cookiecutter(tmp_path, answers)
        assert outcome.code == 0, outcome.output
        assert "has migrated a real PostgreSQL up, down and up again" in outcome.output
    workspace = Workspace(tmp_path / answers["project_slug"]) if answers else installed
    check_texts(workspace)
    check_formats(workspace)
    check_style(workspace)
    workspace.run("ruff", "check", ".")
    workspace.run("ruff", "format", "--check", ".")
    workspace.run("mypy")
    tests = []
    if answers:
        # What no answer changes was tested with the default ones.
        tests = [name for name in OWN_TESTS if workspace.has_file(name)]
    else:
        run(UV, "sync", "--quiet", "--all-groups", cwd=workspace.path)
    assert re.search(r"\d+ passed", workspace.run("pytest", *tests, timeout=600).output)
    assert not (workspace.path / ".postgres").exists(), "the tests ran on the developer's own database"


def test_git_repository_starts_with_one_commit_of_everything(installed: Workspace) -> None:
    def git(*arguments: str) -> list[str]:
        return run("git", *arguments, cwd=installed.path).output.splitlines()

    assert git("log", "--format=%an <%ae>") == ["Test <test@example.com>"]
    assert git("status", "--porcelain") == []
    tracked = set(git("-c", "core.quotePath=off", "ls-files"))
    written = {str(path.relative_to(installed.path)) for path in installed.files()}
    assert tracked == written | {"uv.lock"}


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
    assert "python -m db.verify" in outcome.output


def test_hooks_are_valid_for_the_oldest_python_they_run_on(
    bake: Callable[..., Workspace], tmp_path: Path
) -> None:
    """Rendered as Cookiecutter renders them; they may run on a Python older than the workspace's."""
    from cookiecutter.utils import create_env_with_context

    answers = {"project_slug": "agent-api", "install": True, "init_git": True}
    context = {"cookiecutter": answers | {"_extensions": QUESTIONS["_extensions"]}}
    for name in ("pre_gen_project", "post_gen_project"):
        source = (Path(__file__).parent.parent / "hooks" / f"{name}.py").read_text(encoding="utf-8")
        rendered = tmp_path / f"{name}.py"
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
        assert set(imported) <= sys.stdlib_module_names


def test_the_templates_own_python_is_clean() -> None:
    """What `make lint` checks."""
    run(TOOLS / "ruff", "check", "--no-cache", ".")
    run(TOOLS / "ruff", "format", "--no-cache", "--check", ".")
    run(sys.executable, "-m", "mypy")
