"""Two versions of the template's files and the team's, merged: the team's lines stay, and so do its decisions."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from chassis.settings import ChassisError
from chassis.update.git import Entries, GitError, Repository
from chassis.update.origin import FILES

# A database may be at a revision whose example nobody wants any more.
REVISIONS = "db/migrations/versions/"
GONE, KEPT, RELEASED = (
    "removed here, so it stays away",
    "yours (tool.chassis.keep)",
    "a database may be at it",
)
WHAT = {
    "UU": "changed here and there: see the marks in it",
    "AA": "new here and there: see the marks in it",
    "UD": "changed here, removed from the template: `git add` keeps it, `git rm` removes it",
    "DU": "removed here, changed in the template: `git rm` removes it, `git add` takes it",
    "AU": "renamed here and otherwise there",
    "UA": "renamed here and otherwise there",
    "DD": "renamed here and otherwise there: `git rm` it",
}


class MergeError(ChassisError):
    """The merge can't be begun; nothing has been changed."""


@dataclass(frozen=True)
class Plan:
    """What is merged.

    Attributes:
        old: the template's files as they were, less what is the team's.
        new: the same as they are now.
        left: what the template has changed and is left as it is, and why.
    """

    old: Entries
    new: Entries
    left: dict[str, str] = field(default_factory=dict)


def kept(workspace: Path) -> list[str]:
    """Return what pyproject.toml names under ``tool.chassis.keep``.

    Raises:
        MergeError: where it can't be read.
    """
    try:
        project = tomllib.loads((workspace / "pyproject.toml").read_text(encoding="utf-8"))
        names = project.get("tool", {}).get("chassis", {}).get("keep", [])
    except FileNotFoundError:
        return []
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise MergeError(f"pyproject.toml can't be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MergeError(
            'keep, under [tool.chassis] in pyproject.toml, is a list of names, such as ["agents/"].'
        )
    return names


def is_named(path: str, names: Iterable[str]) -> bool:
    """Whether one of the names is the file's, its folder's, or a pattern that fits."""
    return any(path.startswith(f"{name.rstrip('/')}/") or fnmatchcase(path, name) for name in names)


def plan(git: Repository, old_tree: str, new_tree: str, keep: Iterable[str]) -> Plan:
    """Decide what is merged: not what the team has thrown away, and nothing that it has changed and keeps."""
    here = git.here()
    old, new = git.entries(old_tree), git.entries(new_tree)
    gone, renamed_here = git.moves(old_tree, git.tree(here))
    _, renamed = git.moves(old_tree, new_tree)
    left: dict[str, str] = {}
    for path, entry in dict(old).items():
        target = renamed.get(path, path)
        is_kept = any(is_named(name, keep) for name in (path, renamed_here.get(path, path)))
        if path.startswith(REVISIONS) and path not in new and target == path:
            new[path] = entry
            left[path] = RELEASED
            continue
        if path in FILES:
            why = ""
        elif path in gone:
            why = GONE
        elif is_kept and here.get(path) != entry:
            why = KEPT
        else:
            continue
        if why and new.get(target) != entry:
            left[path] = why
        for tree in (old, new):
            tree.pop(path, None)
            tree.pop(target, None)
            # What is the same on all three sides is left alone.
            if path in here:
                tree[path] = here[path]
    for path in set(new) - set(old):
        if path in FILES or (path in here and is_named(path, keep)):
            new.pop(path)
    return Plan(old, new, left)


def obstacles(git: Repository, plan: Plan) -> list[str]:
    """Return what git doesn't know and the update would write over."""
    here = git.here()
    new = set(plan.new) - set(plan.old) - set(here)
    return sorted(path for path in new if (git.folder / path).exists() or (git.folder / path).is_symlink())


def commits(git: Repository, plan: Plan, name: str) -> tuple[str, str]:
    """Make two commits on top of nothing: the template's files before and now, amid what else the repository has."""
    before = git.commit(git.with_folder(plan.old), "The template before")
    return before, git.commit(git.with_folder(plan.new), name, before)


def apply(git: Repository, plan: Plan, name: str) -> None:
    """Merge into the work tree and the index, with git's marks where there are conflicts.

    Raises:
        MergeError: where git can't begin. Then nothing has been changed.
    """
    _, after = commits(git, plan, name)
    try:
        # A team's own file stays in its folder, wherever the template has moved that.
        options = ["-c", "merge.directoryRenames=false", "-c", "merge.renames=true"]
        git.call(*options, "cherry-pick", "--no-commit", after)
    except GitError as error:
        if not conflicts(git):
            raise MergeError(f"git can't merge: {error}") from error


def conflicts(git: Repository) -> dict[str, str]:
    """Return the files with conflicts, and what each is."""
    lines = git.names("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", ".")
    length = len(git.prefix)
    return {line[3:][length:]: WHAT[line[:2]] for line in lines if line[:2] in WHAT}


def would_merge(git: Repository, plan: Plan) -> bool | None:
    """Whether it would merge without a conflict; None where this git, older than 2.38, can't tell."""
    before, after = commits(git, plan, "The template now")
    ours = git.commit(git.call("rev-parse", "HEAD^{tree}").strip(), "Ours", before)
    code, _, _ = git.run(["-c", "merge.directoryRenames=false", "merge-tree", "--write-tree", ours, after])
    return {0: True, 1: False}.get(code)
