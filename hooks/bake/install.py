"""Installing the packages into the workspace's .venv, with uv or, where there is none, with pip."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bake.environment import BIN
from bake.processes import StepError

# What pip is told in its files would install elsewhere as well as what it is told in variables.
PIP_INSTALL = """
import re, subprocess, sys, tomllib
pip = [sys.executable, "-m", "pip"]
told = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
if elsewhere := re.findall(r"^\\S+\\.(?:target|prefix|root|python)=.*", told, re.MULTILINE):
    sys.exit("pip's settings would install elsewhere: " + ", ".join(elsewhere) + ". See `pip config debug`.")
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
sys.exit(subprocess.call([*pip, "install", "--no-user", "--disable-pip-version-check", *wanted]))
"""
# The same for a person to type, as in the workspace's README.
PIP_BY_HAND = """{python} -m venv .venv
  {bin}{sep}python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); print("\\n".join(p["project"]["dependencies"] + p["dependency-groups"]["dev"]))' > .venv/requirements.txt
  {bin}{sep}pip install --requirement .venv/requirements.txt"""

Run = Callable[[str, Sequence[str], str], None]


def with_uv_by_hand(uv: str | None) -> str:
    """Return the command that installs the packages and writes the lock, whether or not uv is on PATH, or here."""
    if shutil.which("uv"):
        return "uv sync"
    if uv:
        return f"{shlex.quote(uv)} sync"
    uv_of_its_own = f"{Path('.venv') / BIN / 'pip'} install uv && {Path('.venv') / BIN / 'uv'} sync"
    return f"{shlex.quote(sys.executable)} -m venv .venv && {uv_of_its_own}"


def install(run: Run, workspace: Path, uv: str | None, version: str) -> str:
    """Install, and return the path of the workspace's own Python. A .venv that is there is kept and brought up to date.

    Raises:
        StepError: where it can't be done.
    """
    python = str(workspace / ".venv" / BIN / "python")
    there = (workspace / ".venv").exists()
    if there and (has := version_of(workspace / ".venv")) != version:
        raise StepError(
            "Install the packages",
            "rm -r .venv" if uv else "python3 -m venv --clear .venv",
            f"The .venv that is here has Python {has or '(none)'}, the answer is {version}. Remove it, or answer otherwise.",
        )
    if uv:
        by_hand = with_uv_by_hand(uv)
        if not there:
            # Relocatable: its commands work on, wherever the workspace is moved.
            run("Make a virtual environment", [uv, "venv", "--relocatable", ".venv"], by_hand)
        # What a user has installed besides stays.
        run("Install the packages with uv", [uv, "sync", *(["--inexact"] if there else [])], by_hand)
        return python
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = sys.executable if running == version else shutil.which(f"python{version}")
    by_hand = PIP_BY_HAND.format(
        python=shlex.quote(base or f"python{version}"), bin=Path(".venv") / BIN, sep="/"
    )
    if not base:
        raise StepError(
            "Install the packages",
            by_hand,
            f"There is no Python {version} here, and no uv that could fetch it. Install one of the two, or answer {running}.",
        )
    run("Make a virtual environment", [base, "-m", "venv", ".venv"], by_hand)
    run("Install the packages with pip", [python, "-c", PIP_INSTALL], by_hand)
    return python


def version_of(venv: Path) -> str:
    """Return the Python version of a virtual environment, such as 3.13, or "" where it isn't one."""
    try:
        lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    told = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    return ".".join((told.get("version_info") or told.get("version", "")).split(".")[:2])
