"""Git, on the repository that a workspace lies in, which may hold more than the workspace."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chassis.settings import ChassisError

# Who makes the commits that nobody keeps.
NOBODY = {f"GIT_{who}_{what}": "chassis" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# A repository that the caller's environment names isn't the one that is meant, as inside of a hook of git's.
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")

# What a tree holds: mode and object of each path.
Entries = Mapping[str, tuple[str, str]]


class GitError(ChassisError):
    """A command of git didn't succeed. The message is what it printed last."""


@dataclass(frozen=True)
class Repository:
    """A folder in a work tree of git. Paths are seen from it.

    Attributes:
        folder: the folder.
        objects: where new objects are put, None for the repository itself. Elsewhere they leave it as it is.
    """

    folder: Path
    objects: Path | None = None

    def call(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
        """Run git and return what it prints.

        Raises:
            GitError: where it fails, or isn't there.
        """
        code, printed, said = self.run(arguments, stdin, env)
        if code != 0:
            last = "\n".join((printed + said).strip().splitlines()[-3:])
            raise GitError(last or f"git {arguments[0]} ended with {code}.")
        return printed

    def tells(self, *arguments: str) -> bool:
        """Run a command that answers yes or no by its exit code."""
        return self.run(arguments)[0] == 0

    def names(self, *arguments: str) -> list[str]:
        """Run a command with names as its output, each ended by a zero byte."""
        return self.call(*arguments).split("\0")[:-1]

    def run(
        self, arguments: Iterable[str], stdin: str = "", env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run git and return its exit code, what it prints, and what it says of it.

        Raises:
            GitError: where it isn't there.
        """
        base = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                env={**base, **self._apart, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **(env or {})},
                input=os.fsencode(stdin),
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise GitError(f"git can't be run: {error}") from error
        return done.returncode, os.fsdecode(done.stdout), done.stderr.decode("utf-8", "replace")

    @cached_property
    def _apart(self) -> dict[str, str]:
        if self.objects is None:
            return {}
        there = Repository(self.folder).git_path("objects").resolve()
        return {
            "GIT_OBJECT_DIRECTORY": str(self.objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(there),
            "GIT_OPTIONAL_LOCKS": "0",
        }

    @cached_property
    def prefix(self) -> str:
        """The folder's path in its repository, with a slash at the end, or ""."""
        return self.call("rev-parse", "--show-prefix").rstrip("\n")

    def git_path(self, name: str) -> Path:
        """Return the path of a file in git's own folder."""
        return self.folder / self.call("rev-parse", "--git-path", name).rstrip("\n")

    def entries(self, tree: str) -> dict[str, tuple[str, str]]:
        """Return what is in a tree, by paths seen from the tree."""
        found = {}
        for line in self.names("ls-tree", "-r", "-z", "--full-tree", tree):
            what, path = line.split("\t", 1)
            mode, _, name = what.split()
            found[path] = (mode, name)
        return found

    def store(self, rendered: Path) -> str:
        """Keep the files of a folder from elsewhere, those too that an ignore file names, and return their tree."""
        with tempfile.TemporaryDirectory() as place:
            env = {"GIT_INDEX_FILE": str(Path(place, "index"))}
            where = [f"--git-dir={self.git_path('.').resolve()}", f"--work-tree={rendered}"]
            there = Repository(rendered)
            env |= self._apart
            there.call(*where, "add", "--all", "--force", ".", env=env)
            return there.call(*where, "write-tree", env=env).strip()

    def tree(self, entries: Entries) -> str:
        """Make a tree."""
        lines = "".join(f"{mode} {name}\t{path}\0" for path, (mode, name) in entries.items())
        with tempfile.TemporaryDirectory() as place:
            env = {"GIT_INDEX_FILE": str(Path(place, "index"))}
            self.call("update-index", "-z", "--index-info", stdin=lines, env=env)
            return self.call("write-tree", env=env).strip()

    def commit(self, tree: str, message: str, *parents: str) -> str:
        """Make a commit that no branch holds."""
        after = [word for parent in parents for word in ("-p", parent)]
        return self.call("commit-tree", tree, *after, "-m", message, env=NOBODY).strip()

    def here(self) -> dict[str, tuple[str, str]]:
        """Return what the last commit has of this folder."""
        length = len(self.prefix)
        whole = self.entries("HEAD")
        return {path[length:]: entry for path, entry in whole.items() if path.startswith(self.prefix)}

    def with_folder(self, entries: Entries) -> str:
        """Make the last commit's tree anew with other contents of this folder."""
        whole = self.entries("HEAD")
        others = {path: entry for path, entry in whole.items() if not path.startswith(self.prefix)}
        return self.tree({**others, **{self.prefix + path: entry for path, entry in entries.items()}})

    def moves(self, before: str, after: str) -> tuple[set[str], dict[str, str]]:
        """Compare two trees: return what was taken away, and what was renamed to what."""
        words = iter(self.names("diff-tree", "-r", "-z", "--find-renames", "--name-status", before, after))
        gone, renamed = set(), {}
        for status in words:
            path = next(words)
            if status.startswith("R"):
                renamed[path] = next(words)
            elif status == "D":
                gone.add(path)
        return gone, renamed
