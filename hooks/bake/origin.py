"""Where a workspace came from, in the form that cruft reads, so that it can be updated without being linked first.

Where nothing can be fetched from later, as from an archive or a copy without git, there is no such file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from bake.git import GitError
from bake.git import call as run
from bake.messages import raw_text


def cruft_state(answers: dict[str, Any], call: dict[str, Any]) -> str | None:
    """Return what cruft's file is to hold: the template's address and commit, and the answers; None if they can't be told.

    Args:
        answers: Cookiecutter's context.
        call: how Cookiecutter was called, see `called` in local_extensions.py.
    """
    template, git = Path(call.get("template_root", call["hooks"])), shutil.which("git")
    if git is None:
        return None
    try:
        # Git may know the folder only as one that lies in somebody's repository.
        asked = ("ls-files", "-z", "--error-unmatch", "--full-name", "cookiecutter.json")
        inside = PurePosixPath(run(git, template, *asked).rstrip("\0")).parent
        commit, top = run(git, template, "rev-parse", "HEAD", "--show-toplevel").splitlines()
    except GitError:
        return None
    address = call.get("template_address") or _published(git, template) or top
    state = {
        "template": _without_secrets(address),
        "commit": commit,
        "checkout": call.get("checkout"),
        # No private ones: the template's own of the day count. And cruft renders what it reads.
        "context": {
            "cookiecutter": {
                name: raw_text(value) for name, value in answers.items() if not name.startswith("_")
            }
        },
        "directory": None if inside == PurePosixPath() else str(inside),
    }
    return json.dumps(state, ensure_ascii=False, indent=2) + "\n"


def is_ours(file: Path) -> bool:
    """Whether such a file is of this template, by a question that it answers; a repository may have come from another."""
    try:
        return "use_chat_page" in json.loads(file.read_text(encoding="utf-8"))["context"]["cookiecutter"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _published(git: str, template: Path) -> str | None:
    """Return the address from which others get the same commit, if it has been pushed."""
    try:
        if run(git, template, "branch", "--remotes", "--contains", "HEAD"):
            return run(git, template, "remote", "get-url", "origin").strip()
    except GitError:
        pass
    return None


def _without_secrets(address: str) -> str:
    """Return the address without the token or password that may be in it, as it gets committed, in the form that git reads."""
    address = address.removeprefix("git+")
    parts = urlsplit(address)
    if parts.scheme in {"http", "https"} and "@" in parts.netloc:
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return address
