"""The template: its versions, what they say has changed, and its files with a workspace's answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from chassis.settings import ChassisError
from chassis.update.git import GitError, Repository
from chassis.update.origin import MOMENTARY, Origin

COOKIECUTTER = "cookiecutter>=2.6,<3"
RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
SECTION = re.compile(r"^## \[?v?(?:(\d+\.\d+\.\d+)|Unreleased)\b.*$", re.MULTILINE)
BY_HAND = re.compile(r"^### By hand\n+(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)

Version = tuple[int, int, int]


class TemplateError(ChassisError):
    """The template can't be had, has no such version, or can't be rendered."""


def version_of(name: str) -> Version | None:
    """Read a version, such as v0.1.0."""
    found = RELEASE.fullmatch(name)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True)
class Target:
    """What to update to: the commit, what people call it, and the branch or tag to remember."""

    commit: str
    name: str
    checkout: str | None


@dataclass(frozen=True)
class Template:
    """A clone of the template.

    Attributes:
        git: the clone.
        directory: where in it the template is.
    """

    git: Repository
    directory: str | None = None

    @classmethod
    def clone(cls, origin: Origin, folder: Path) -> Self:
        """Get the template from its address.

        Raises:
            TemplateError: where it can't be had.
        """
        try:
            Repository(folder.parent).call(
                "clone", "--quiet", "--no-checkout", "--", origin.address, str(folder)
            )
        except GitError as error:
            raise TemplateError(
                f"The template can't be fetched from {origin.address}, which .cruft.json names: {error}"
            ) from error
        template = cls(Repository(folder), origin.directory)
        if not template.has(origin.commit):
            raise TemplateError(
                f"The template at {origin.address} has no commit {origin.commit}, from which .cruft.json says that this "
                "workspace was made. Write the commit into .cruft.json whose files are closest to it."
            )
        return template

    def has(self, commit: str) -> bool:
        """Whether there is such a commit."""
        return self.git.tells("cat-file", "-e", f"{commit}^{{commit}}")

    @cached_property
    def releases(self) -> dict[Version, str]:
        """The tags of released versions, the oldest first."""
        tags = self.git.call("tag", "--list").split()
        found = {version: tag for tag in tags if (version := version_of(tag))}
        return dict(sorted(found.items()))

    def commit_of(self, name: str) -> str:
        """Return the commit of a tag, a branch or a commit's name, or ""."""
        for form in (f"refs/tags/{name}", f"refs/tags/v{name}", f"refs/remotes/origin/{name}", name):
            if not form.startswith("-") and self.git.tells(
                "rev-parse", "--verify", "--quiet", f"{form}^{{commit}}"
            ):
                return self.git.call("rev-parse", "--verify", f"{form}^{{commit}}").strip()
        return ""

    def describe(self, commit: str) -> str:
        """Return what people call a commit: its tag, or how far it is after one."""
        return self.git.call("describe", "--tags", "--always", commit).strip()

    def released_by(self, commit: str) -> Version:
        """Return the newest version that a commit holds, 0.0.0 where it is older than all."""
        tags = self.git.call("tag", "--list", "--merged", commit).split()
        return max((version for tag in tags if (version := version_of(tag))), default=(0, 0, 0))

    def choose(self, origin: Origin, wanted: str | None) -> Target:
        """Decide what to update to: what is wanted, else the newest of the branch that was asked for, else the newest version.

        Raises:
            TemplateError: where there is no such version.
        """
        if wanted:
            commit = self.commit_of(wanted)
            if not commit:
                newest = ", ".join(list(self.releases.values())[-5:]) or "none"
                raise TemplateError(f"The template has no version {wanted!r}. The newest are: {newest}.")
            is_released = version_of(wanted) is not None
            return Target(commit, self.describe(commit), None if is_released else wanted)
        if origin.checkout and self.git.tells(
            "rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{origin.checkout}"
        ):
            commit = self.commit_of(origin.checkout)
            return Target(commit, self.describe(commit), origin.checkout)
        if self.releases:
            commit = self.commit_of(list(self.releases.values())[-1])
            # Made from something newer than that, it stays where it is.
            if self.git.tells("merge-base", "--is-ancestor", commit, origin.commit):
                commit = origin.commit
            return Target(commit, self.describe(commit), None)
        commit = self.git.call("rev-parse", "refs/remotes/origin/HEAD").strip()
        return Target(commit, self.describe(commit), None)

    def changelog(self, before: str, after: str) -> str:
        """Return what the changelog says of the versions after one commit, up to another."""
        path = "/".join(filter(None, (self.directory, "CHANGELOG.md")))
        try:
            text = self.git.call("show", f"{after}:{path}")
        except GitError:
            return ""
        first, last = self.released_by(before), self.released_by(after)
        is_release = self.describe(after) in self.releases.values()
        sections = list(SECTION.finditer(text))
        found = []
        for section, following in zip(sections, [*sections[1:], None], strict=True):
            version = version_of(section[1]) if section[1] else None
            if first < version <= last if version else not is_release:
                found.append(text[section.start() : following.start() if following else len(text)].strip())
        return "\n\n".join(found)

    def render(self, commit: str, answers: Mapping[str, Any], place: Path) -> Path:
        """Write the template's files of a commit with these answers, and return their folder.

        Raises:
            TemplateError: where that version can't be rendered with them.
        """
        self.git.call("checkout", "--quiet", "--detach", commit)
        place.mkdir()
        # Nothing of the user's own settings counts, and what Cookiecutter remembers is forgotten with the folder.
        settings = place / "settings.yaml"
        settings.write_text(
            json.dumps({name: str(place / name) for name in ("replay_dir", "cookiecutters_dir")}),
            encoding="utf-8",
        )
        output, temporary = place / "output", place / "temporary"
        output.mkdir()
        temporary.mkdir()
        told = {**answers, **dict.fromkeys(MOMENTARY, "no")}
        done = subprocess.run(
            [
                *renderer(),
                *("--no-input", "--config-file", str(settings), "--output-dir", str(output)),
                *(("--directory", self.directory) if self.directory else ()),
                str(self.git.folder),
                *(f"{name}={value}" for name, value in told.items()),
            ],
            cwd=place,
            env={
                **os.environ,
                "PYTHONUTF8": "1",
                "NO_COLOR": "1",
                "COLUMNS": "500",
                # What Cookiecutter leaves there when it is killed is forgotten with the folder too.
                **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        folders = list(output.iterdir())
        if done.returncode != 0 or len(folders) != 1:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-3:])
            raise TemplateError(
                f"The template's version {self.describe(commit)} can't be rendered with this workspace's answers, which "
                f"are in .cruft.json:\n{last}"
            )
        return folders[0]


def renderer() -> list[str]:
    """Return the command of Cookiecutter: the one of this environment, or one that uv keeps.

    Raises:
        TemplateError: where there is neither.
    """
    if find_spec("cookiecutter"):
        return [sys.executable, "-m", "cookiecutter"]
    if uv := find_uv():
        options = ["--python", sys.executable, "--from", COOKIECUTTER]
        return [uv, "tool", "run", "--quiet", *options, "cookiecutter"]
    raise TemplateError(
        "Rendering the template takes Cookiecutter, and neither it nor uv is here. Install one of them."
    )


def find_uv() -> str | None:
    """Return the path of uv: of the one that runs us, or of the one on PATH."""
    return os.environ.get("UV") or shutil.which("uv")


def by_hand(changelog: str) -> str:
    """Return what the changelog says that a team has to do by hand, the oldest first, "" for nothing."""
    return "\n".join(found.strip() for found in reversed(BY_HAND.findall(changelog)))
