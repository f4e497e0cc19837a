"""A uv workspace above the folder: uv would put packages and lock of a member there, not here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

with contextlib.suppress(ModuleNotFoundError):  # Python 3.10 has none, and sees no workspace
    import tomllib


def obstacle(folder: Path) -> str:
    """Say which uv workspace would take the folder for a member, or "".

    A workspace of its own, below another one, is what uv refuses, so the folder can't be kept out from here.
    """
    for parent in folder.parents:
        project = _read(parent / "pyproject.toml")
        uv = project.get("tool", {}).get("uv", {})
        if "workspace" in uv:
            told = uv["workspace"]
            member = folder in _matching(parent, told.get("members", []))
            if not member or folder in _matching(parent, told.get("exclude", [])):
                return ""
            name = folder.relative_to(parent).as_posix()
            return (
                f"{parent / 'pyproject.toml'} takes this folder for a member of its uv workspace, so packages and uv.lock "
                f'would go there. Add exclude = ["{name}"] to its [tool.uv.workspace], or bake elsewhere.'
            )
        if "project" in project:  # where uv stops looking
            return ""
    return ""


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, NameError):
        if file.is_file():
            return tomllib.loads(file.read_text(encoding="utf-8"))
    return {}


def _matching(root: Path, patterns: list[str]) -> Iterator[Path]:
    for pattern in patterns:
        with contextlib.suppress(ValueError, NotImplementedError, IndexError, OSError):
            yield from (path.resolve() for path in root.glob(pattern))
