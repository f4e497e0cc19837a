"""Workspaces: how they are baked, and what is in them."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commands import ROOT, Outcome, run

TEMPLATE_FOLDER = "{{cookiecutter.project_slug}}"
QUESTIONS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

# Answers that ask as much of escaping as a person's may.
ODD_ANSWERS = (
    {
        "project_name": 'Zoë’s "Best" Agent: 100% {safe} \\ API',
        "project_slug": "zoes-best-agent-api",
        "description": "Fills {{ braces }}, runs `ls $HOME` & \\n, 100% #1: 'quoted' \"twice\".",
        "author": 'O\'Brien & "Söhne" GmbH',
        "email": "zoe.o+agents@api.example.co.uk",
    },
    {
        "project_name": "- [x] *Agent* <b>&amp;</b> | ~API~ _2_ #!",
        "project_slug": "x2-agent",
        "description": "# It's {% odd %} {# too #}: [link](x) \\t \\u0041 ${HOME} $(id) %(here)s 日本 😀",
        "author": "`backtick` \\ $USER {0} : - ? ! @ % 'x",
        "email": "a@b.example",
    },
)


@dataclass(frozen=True)
class Workspace:
    """A baked workspace."""

    path: Path

    def has_file(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def files(self) -> list[Path]:
        """Every file that the template wrote, without what the hook and the tools added."""
        added = {
            ".venv",
            ".git",
            ".postgres",
            "uv.lock",
            ".cruft.json",
            "__pycache__",
            ".hypothesis",
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
        }
        return sorted(
            path
            for path in self.path.rglob("*")
            if path.is_file()
            and added.isdisjoint(path.relative_to(self.path).parts)
            and path.suffix != ".pyc"
        )

    def copy(self, to: Path) -> "Workspace":
        """Copy it, but for the installed packages, which are shared."""
        shutil.copytree(self.path, to, ignore=shutil.ignore_patterns(".venv", ".git", ".postgres"))
        (to / ".venv").symlink_to((self.path / ".venv").resolve())
        return Workspace(to)

    def run(self, program: str, *arguments: str | Path, **options: Any) -> Outcome:
        """Run a program of the workspace's own environment, or else one on PATH, in its folder."""
        own = self.path / ".venv/bin" / program
        return run(own if own.exists() else program, *arguments, **{"cwd": self.path, **options})

    def alembic(self, *arguments: str, **options: Any) -> Outcome:
        return self.run("alembic", "-c", "db/alembic.ini", *arguments, **options)


def raw(value: str) -> str:
    """Quote a value so that Cookiecutter, which renders `key=value`, leaves it as it is."""
    return "{% raw %}" + value + "{% endraw %}" if "{" in value else value


def cookiecutter(
    output: Path,
    answers: Mapping[str, str] | None = None,
    *,
    template: Path | str = ROOT,
    options: tuple[str, ...] = ("--no-input",),
    **how: Any,
) -> Outcome:
    """Run Cookiecutter's command, as a user does; `answers` are given as key=value."""
    pairs = [f"{name}={raw(value)}" for name, value in (answers or {}).items()]
    return run(
        sys.executable,
        "-m",
        "cookiecutter",
        *options,
        "-o",
        output,
        template,
        *pairs,
        **{"check": False, **how},
    )


def copy_of_template(target: Path) -> Path:
    """Copy the template, without what tools keep in its folder, for a test to change."""
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "uv.lock", "__pycache__", ".*_cache")
    return Path(shutil.copytree(ROOT, target, ignore=unwanted))
