"""What counts as released, by git: the revisions' files at the base, and the code that still runs then."""

import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath

from chassis.lint.errors import LintError
from chassis.settings import WORKSPACE

VERSIONS = "db/migrations/versions"
CODE = ("db", "chassis")


@dataclass(frozen=True)
class Base:
    """A commit, None where nothing is known to be released.

    Attributes:
        commit: its name.
        files: the workspace's files under db/ and chassis/ there, path -> content.
    """

    commit: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def revisions(self) -> dict[str, str]:
        """The revisions' files, name -> content, with the line ends that Python reads."""
        return {
            PurePosixPath(path).name: content.decode("utf-8", "replace").replace("\r\n", "\n")
            for path, content in self.files.items()
            if path.startswith(f"{VERSIONS}/") and path.endswith(".py")
        }

    def read(self, path: str) -> str | None:
        """Return the content of a file of the workspace, None where it wasn't there."""
        content = self.files.get(path)
        return None if content is None else content.decode("utf-8")

    def write(self, folder: Path) -> bool:
        """Write the code into a folder; tell whether it has tables."""
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return any(path.startswith("db/tables") for path in self.files)


def find_base(wanted: str | None) -> Base:
    """Return what counts as released: where this branch left the base.

    Raises:
        LintError: for a base that git doesn't know.
    """
    if _git("rev-parse", "--git-dir") is None:
        return Base()
    candidates = [wanted] if wanted else ["origin/HEAD", "origin/main", "HEAD"]
    known = [ref for ref in candidates if _git("rev-parse", "--verify", "--quiet", f"{ref}^0")]
    if not known:
        if wanted:
            raise LintError(f"git knows no {wanted}. Fetch it, or name another base: --base main")
        return Base()
    commit = (_git("merge-base", "HEAD", known[0]) or b"").decode().strip() or known[0]
    # Seen from here, as the workspace may be a folder of a larger repository.
    listed = _git("ls-tree", "--name-only", "-z", commit, *(f"{part}/" for part in CODE)) or b""
    there = [
        part for part in CODE if any(name.startswith(f"{part}/".encode()) for name in listed.split(b"\0"))
    ]
    packed = _git("archive", "--format=tar", commit, *there) if there else None
    return Base(commit, _unpacked(packed) if packed else {})


def _unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        found = ((member.name, archive.extractfile(member)) for member in archive if member.isfile())
        return {name: file.read() for name, file in found if file is not None}


def _git(*arguments: str) -> bytes | None:
    """What git prints, or None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=WORKSPACE, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
