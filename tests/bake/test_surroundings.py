"""What lies above the folder and what the shell sets leads nothing elsewhere."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.bake.test_install import base_python, machine, next_steps
from tests.support.belongings import look, write
from tests.support.commands import ROOT, UV, run
from tests.support.workspaces import Workspace, cookiecutter

ROOT_PROJECT = '[project]\nname = "parent"\nversion = "0"\nrequires-python = ">=3.11"\n'
# (the parent's pyproject.toml, where the bake goes, whether uv would take it for a member)
ABOVE = {
    "member": (ROOT_PROJECT + '[tool.uv.workspace]\nmembers = ["packages/*"]\n', "packages", True),
    "member-deep": ('[tool.uv.workspace]\nmembers = ["**/*"]\n', "a/b", True),
    "member-named": (ROOT_PROJECT + '[tool.uv.workspace]\nmembers = ["./agent-api"]\n', ".", True),
    "excluded": (
        ROOT_PROJECT + '[tool.uv.workspace]\nmembers = ["packages/*"]\nexclude = ["packages/agent-*"]\n',
        "packages",
        False,
    ),
    "not-matching": (ROOT_PROJECT + '[tool.uv.workspace]\nmembers = ["other/*"]\n', "packages", False),
    "no-workspace": (ROOT_PROJECT, ".", False),
    "not-managed": (
        ROOT_PROJECT + '[tool.uv]\nmanaged = false\n[tool.uv.workspace]\nmembers = ["*"]\n',
        ".",
        True,
    ),
}


@pytest.mark.parametrize("install", ["yes", "no"])
@pytest.mark.parametrize("case", [case for case, (_, _, member) in ABOVE.items() if member])
def test_a_uv_workspace_above_is_told_before_anything_is_written(
    tmp_path: Path, case: str, install: str
) -> None:
    project, place, _ = ABOVE[case]
    write(tmp_path, {"parent/pyproject.toml": project, f"parent/{place}/mine.txt": "mine"})
    before = look(tmp_path)
    outcome = cookiecutter(tmp_path / "parent" / place, {"install": install})
    assert outcome.code == 1
    assert "takes this folder for a member of its uv workspace" in outcome.output
    assert look(tmp_path) == before
    # What it says helps.
    (advice,) = re.findall(r"Add (exclude = .*?) to its", outcome.output)
    file = tmp_path / "parent/pyproject.toml"
    file.write_text(project.replace("[tool.uv.workspace]\n", f"[tool.uv.workspace]\n{advice}\n"))
    check_of_its_own(tmp_path / "parent" / place)


@pytest.mark.parametrize("case", [case for case, (_, _, member) in ABOVE.items() if not member])
def test_what_is_no_workspace_of_ours_is_no_obstacle(tmp_path: Path, case: str) -> None:
    project, place, _ = ABOVE[case]
    write(tmp_path, {"parent/pyproject.toml": project})
    check_of_its_own(tmp_path / "parent" / place)


def check_of_its_own(output: Path) -> None:
    """uv itself takes the workspace for its own, and the parent gets nothing."""
    above = look(output)
    cookiecutter(output, {"install": "no", "init_git": "no"}, check=True)
    found = run(UV, "workspace", "dir", cwd=output / "agent-api").output.strip().splitlines()[-1]
    assert Path(found).resolve() == (output / "agent-api").resolve()
    shutil.rmtree(output / "agent-api")
    assert look(output) == above


# Each would lead uv, pip, Python or the verification elsewhere, or leave out what it needs.
LEADING = {
    "UV_NO_DEFAULT_GROUPS": "1",
    "UV_NO_DEV": "1",
    "UV_NO_GROUP": "dev",
    "UV_PROJECT": "{elsewhere}",
    "UV_PROJECT_ENVIRONMENT": "{elsewhere}/venv",
    "UV_WORKING_DIR": "{elsewhere}",
    "UV_WORKING_DIRECTORY": "{elsewhere}",
    "UV_PYTHON": "3.99",
    "UV_FROZEN": "1",
    "UV_LOCKED": "1",
    "UV_NO_SYNC": "1",
    "UV_DRY_RUN": "1",
    "UV_ONLY_GROUP": "none",
    "UV_RESOLUTION": "lowest",
    "UV_NO_INSTALL_PACKAGE": "sqlalchemy",
    "UV_ENV_FILE": "{elsewhere}/env",
    "UV_ISOLATED": "1",
    "PIP_TARGET": "{elsewhere}/target",
    "PIP_PREFIX": "{elsewhere}/prefix",
    "PIP_ROOT": "{elsewhere}/root",
    "PIP_USER": "1",
    "PIP_PYTHON": "{elsewhere}/python",
    "PIP_DRY_RUN": "1",
    "PIP_NO_DEPS": "1",
    "PIP_REQUIREMENT": "{elsewhere}/requirements.txt",
    "PYTHONUSERBASE": "{elsewhere}/base",
    "PYTHONSTARTUP": "{elsewhere}/startup.py",
    "PYTHONPATH": "{elsewhere}",
    "VIRTUAL_ENV": "{elsewhere}/venv",
    "CONDA_PREFIX": "{elsewhere}/conda",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/own",
    "RUNTIME_ENV": "prd",
    "PGSERVICE": "own",
    "ANYTHING_NEW": "1",
}
# Without these a machine behind a company's walls installs nothing.
PASSING = {
    "UV_INDEX_INTERNAL_PASSWORD": "x",
    "UV_CONCURRENT_DOWNLOADS": "4",
    "UV_PYTHON_INSTALL_MIRROR": "https://mirror.example",
    "PIP_TIMEOUT": "120",
    "no_proxy": "localhost",
    "XDG_CACHE_HOME": "{elsewhere}/cache",
    "LC_MESSAGES": "C",
}


@pytest.mark.full
def test_only_what_is_named_passes(tmp_path: Path) -> None:
    """As a program in the place of uv sees it."""
    write(
        tmp_path,
        {"bin/uv": f'#!/bin/sh\nenv > "{tmp_path}/seen-$1"\nexec "{UV}" "$@"\n', "elsewhere/env": ""},
    )
    (tmp_path / "bin/uv").chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    variables = {
        name: value.format(elsewhere=elsewhere)
        for name, value in (LEADING | PASSING | {"UV": str(tmp_path / "bin/uv")}).items()
    }
    before = look(elsewhere)
    outcome = cookiecutter(tmp_path / "output", {"init_git": "no"}, env=variables)
    assert outcome.code == 0, outcome.output
    assert {name: found for name, found in look(elsewhere).items() if not name.startswith("cache")} == before
    seen = dict(
        line.split("=", 1) for line in (tmp_path / "seen-sync").read_text().splitlines() if "=" in line
    )
    assert not set(LEADING) & set(seen)
    assert set(PASSING) <= set(seen)


@pytest.mark.full
def test_the_printed_commands_work_in_a_shell_that_would_lead_them_astray(
    tmp_path: Path, shell_environment: dict[str, str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {
        name: value.format(elsewhere=elsewhere)
        for name, value in LEADING.items()
        if name.startswith(("UV_", "PIP_", "DATABASE", "RUNTIME", "PYTHONPATH"))
    }
    environment: dict[str, str | None] = {**shell_environment, **variables, "UV": None}
    outcome = cookiecutter(tmp_path / "output", {"init_git": "no"}, env=environment)
    assert outcome.code == 0, outcome.output
    assert "uv run alembic" in outcome.output
    assert "would lead these commands elsewhere" in outcome.output
    steps = next_steps(outcome.output)
    run("bash", "-ec", "\n".join(steps), cwd=tmp_path, env=environment)
    assert list(elsewhere.iterdir()) == []
    assert "(head)" in Workspace(tmp_path / "output/agent-api").alembic("current").output


@pytest.fixture
def without_uv(tmp_path: Path) -> dict[str, str | None]:
    environment = machine(tmp_path / "machine", python=base_python())
    place = tmp_path / "machine/cookiecutter"
    run(UV, "venv", "--quiet", "--python", base_python(), place)
    run(UV, "pip", "install", "--quiet", "--python", place, "cookiecutter")
    (tmp_path / "machine/bin/cookiecutter").symlink_to(place / "bin/cookiecutter")
    return {**environment, "UV": None, "UV_SYSTEM_CERTS": "true"}


def bake_without_uv(environment: dict[str, str | None], output: Path, **more: str) -> tuple[int, str]:
    program = Path(str(environment["PATH"])) / "cookiecutter"
    outcome = run(
        *(program, "--no-input", "-o", output, ROOT, "init_git=no"),
        env=environment | more,
        check=False,
        timeout=600,
    )
    return outcome.code, outcome.output


@pytest.mark.full
def test_pip_installs_nowhere_else(tmp_path: Path, without_uv: dict[str, str | None]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    leading = {name: value.format(elsewhere=elsewhere) for name, value in LEADING.items()}
    code, output = bake_without_uv(without_uv, tmp_path / "output", **leading)
    assert code == 0, output
    assert "ok  Install the packages with pip" in output
    assert list(elsewhere.iterdir()) == []


def test_what_pip_is_told_in_its_settings_installs_nowhere_else(
    tmp_path: Path, without_uv: dict[str, str | None]
) -> None:
    """And without uv, nothing that is printed to be repeated needs it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(tmp_path, {"machine/home/.config/pip/pip.conf": f"[install]\ntarget = {elsewhere}/target\n"})
    code, output = bake_without_uv(without_uv, tmp_path / "output")
    assert code == 1
    assert f"pip's settings would install elsewhere: install.target='{elsewhere}/target'" in output
    assert list(elsewhere.iterdir()) == []
    ours = output.partition("What follows is Cookiecutter's own")[0]
    by_hand = ours.partition("repeat the step by hand")[2]
    assert by_hand
    assert not re.search(r"\buvx?\b", by_hand)


@pytest.mark.full
def test_without_uv_the_steps_to_repeat_by_hand_install_and_verify(
    tmp_path: Path, without_uv: dict[str, str | None]
) -> None:
    write(tmp_path, {"machine/home/.config/pip/pip.conf": "[install]\ntarget = /nowhere/target\n"})
    code, output = bake_without_uv(without_uv, tmp_path / "output")
    assert code == 1
    lines = output.partition("repeat the step by hand:")[2].partition("What follows")[0].strip().splitlines()
    (tmp_path / "machine/home/.config/pip/pip.conf").unlink()
    again, code_block = lines[0].strip(), "\n".join(line.strip() for line in lines[1:])
    assert "--keep-project-on-failure" in again
    program = Path(str(without_uv["PATH"])) / "cookiecutter"
    run(program, "--no-input", "-o", tmp_path / "output", ROOT, "install=no", "init_git=no", env=without_uv)
    run("bash", "-ec", code_block, cwd=tmp_path, env=without_uv, timeout=600)
    folder = tmp_path / "output/agent-api"
    run(folder / ".venv/bin/python", "-m", "chassis", "verify", cwd=folder, env=without_uv)
    assert sys.version_info >= (3, 11)
    assert os.environ["UV"]


def test_a_folder_that_alembic_cannot_read_from_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "feature%2Fx"
    output.mkdir()
    outcome = cookiecutter(output, {"install": "no", "init_git": "no"})
    assert outcome.code != 0
    assert "choose another one with -o" in outcome.output
    assert list(output.iterdir()) == []
