"""Prepare a release: ``make release VERSION=0.2.0`` checks the changelog, and sets date and versions. It commits nothing."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
# Each file that holds the version, and how: what a workspace gets is the chassis' version.
VERSIONS = (
    (ROOT / "pyproject.toml", re.compile(r'(?m)^(version = ")([^"]+)(")')),
    (
        ROOT / "{{cookiecutter.project_slug}}" / "chassis" / "__init__.py",
        re.compile(r'(?m)^(__version__ = ")([^"]+)(")'),
    ),
)
FORM = re.compile(r"(\d+)\.(\d+)\.(\d+)")
UNRELEASED = re.compile(r"(?ms)^## \[Unreleased\]\n(.*?)(?=^## |\Z)")
RELEASED = re.compile(r"(?m)^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$")


class ReleaseError(Exception):
    """The release can't be prepared; the message says what to do."""


def number(version: str) -> tuple[int, ...]:
    """Read a version."""
    return tuple(int(part) for part in version.split("."))


def check(version: str, changelog: str) -> None:
    """Check version and changelog.

    Raises:
        ReleaseError: where one of them isn't right.
    """
    if not FORM.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version: it has the form 0.2.0.")
    released = RELEASED.findall(changelog)
    if released and number(version) <= max(map(number, released)):
        raise ReleaseError(
            f"{version} doesn't come after {max(released, key=number)}, the newest in CHANGELOG.md."
        )
    unreleased = UNRELEASED.search(changelog)
    if unreleased is None or not re.search(r"(?m)^- \S", unreleased[1]):
        raise ReleaseError(
            'CHANGELOG.md says nothing under "## [Unreleased]": write what has changed, a "- " line each.'
        )
    by_hand = re.search(r"(?ms)^### By hand\n(.*?)(?=^#|\Z)", unreleased[1])
    if by_hand and not re.search(r"(?m)^- \S", by_hand[1]):
        raise ReleaseError(
            '"### By hand" in CHANGELOG.md is empty: write what a team has to do, or take it out.'
        )
    if version.endswith(".0.0") and not by_hand:
        raise ReleaseError(
            f'{version} is a major version: say under "### By hand" in CHANGELOG.md what a team has to do.'
        )


def main(arguments: Sequence[str]) -> int:
    """Prepare the release and tell the commands that make it; return 0, or 1 with nothing changed."""
    parser = argparse.ArgumentParser(description="Prepare a release.")
    parser.add_argument("version", help="for example 0.2.0")
    version = parser.parse_args(arguments).version.removeprefix("v")
    try:
        changelog = CHANGELOG.read_text(encoding="utf-8")
        check(version, changelog)
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        if changed:
            raise ReleaseError(
                "There are uncommitted changes, which would become a part of the release: commit them."
            )
        texts = {}
        for file, place in VERSIONS:
            text, count = place.subn(rf"\g<1>{version}\g<3>", file.read_text(encoding="utf-8"), count=1)
            if not count:
                raise ReleaseError(f"{file.relative_to(ROOT)} has no version.")
            texts[file] = text
    except (ReleaseError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    today = datetime.now(UTC).date().isoformat()
    texts[CHANGELOG] = changelog.replace(
        "## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {today}\n", 1
    )
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    print(
        f"Date and versions are set. Look at them with git diff, run the tests, then:\n"
        f"  git commit --all --message 'Release {version}' && git tag --annotate v{version} --message v{version}\n"
        f"  git push origin main v{version}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
