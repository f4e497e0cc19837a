"""Git, run as its user's, on the repository that its caller names and no other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bake import environment
from bake.messages import tail


class GitError(Exception):
    """A command of git didn't succeed. Holds the last of what it printed."""


def call(git: str, folder: Path, *arguments: str, names: Iterable[str] = ()) -> str:
    """Run git in a folder, with these names on its standard input, and return what it prints.

    Raises:
        GitError: where it fails, or can't be run.
    """
    try:
        done = subprocess.run(
            [git, *arguments],
            cwd=folder,
            env=environment.for_git(),
            input=b"".join(os.fsencode(name) + b"\0" for name in names),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise GitError(str(error)) from error
    printed = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        said = printed + done.stderr.decode("utf-8", "replace")
        raise GitError(tail(said, 3) or f"git ended with {done.returncode}")
    return printed
