"""Starting a git repository with a first commit of what this bake has written, and of nothing else.

Whatever git says, the workspace stays: a step that fails is a line, with what to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from bake.git import GitError, call
from bake.notes import Notes, remove_all
from bake.processes import say


def start(notes: Notes, written: Iterable[str], scripts: Iterable[str]) -> None:
    """Start a repository unless there is one; commit as the user where git knows who that is, else leave it staged.

    Args:
        notes: what was there before.
        written: the files that this bake has written.
        scripts: those of them that are run, on file systems too that can't tell.
    """
    workspace = notes.workspace
    if notes.was_there(".git"):
        say("--  Nothing is committed, the repository is yours: `git status` shows what has changed.")
        return
    if above := work_tree_above(workspace):
        say(f"--  No git repository: the folder lies in that of {above}. Commit it there.")
        if (workspace / ".github").exists():
            say("    GitHub takes .github/ only from the top of a repository: move what you want of it.")
        return
    git = shutil.which("git")
    if git is None:
        say("--  No git repository: git isn't installed.")
        return
    try:
        _call(git, workspace, "-c", "init.defaultBranch=main", "init", "--quiet", str(workspace))
        if not (workspace / ".git" / "HEAD").exists():
            raise GitError("git init made no repository here")
        # Not `git add`, which leaves out without a word what a global ignore file names.
        _call(git, workspace, "update-index", "--add", "-z", "--stdin", names=written)
        _call(git, workspace, "update-index", "--chmod=+x", "-z", "--stdin", names=scripts)
    except GitError as failure:
        remove_all(workspace / ".git")
        say(f"--  No git repository: {failure}\n    Once that is mended: git init && git add --all")
        return
    try:
        for part in ("name", "email"):
            if not os.environ.get(f"GIT_AUTHOR_{part.upper()}"):
                _call(git, workspace, "config", f"user.{part}")
    except GitError:
        say(
            "--  Git repository started, files staged. git doesn't know you yet, so the first commit is yours:\n"
            '    git config user.name "..." && git config user.email "..." && git commit -m "Start"'
        )
        return
    try:
        _call(git, workspace, "commit", "--quiet", "--message", "Start from cookiecutter-agent-api")
    except GitError as failure:
        say(f"--  Git repository started, files staged; the commit didn't succeed: {failure}")
        return
    say("ok  Start a git repository with a first commit")


def work_tree_above(workspace: Path) -> Path | None:
    """Return the folder whose repository the workspace would be nested in, whether or not git can read it."""
    return next((parent for parent in workspace.parents if os.path.lexists(parent / ".git")), None)


def _call(git: str, workspace: Path, *arguments: str, names: Iterable[str] = ()) -> None:
    """Run git on this repository and no other.

    Raises:
        GitError: with the last lines of what it printed.
    """
    here = [] if "init" in arguments else [f"--git-dir={workspace / '.git'}", f"--work-tree={workspace}"]
    call(git, workspace, *here, *arguments, names=names)
