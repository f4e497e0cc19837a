"""`make fleet` and `make release`: what is seen of many services, and what a release takes."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.belongings import files
from tests.support.commands import ROOT, Outcome, run
from tests.support.releases import HEAD, change, commit, git
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, copy_of_template


def test_the_fleet_at_a_glance(released: Path, first: Workspace, tmp_path: Path) -> None:
    def service(name: str) -> Path:
        git(tmp_path, "clone", "--quiet", str(first.path), name)
        return tmp_path / name

    service("untouched")
    conflicting, changed, current = service("conflicting"), service("changed"), service("current")
    change(conflicting, "example.env", "\n", "\n# Ours.\n")
    commit(conflicting, "Ours")
    change(changed, "chassis/errors.py", '"""', '"""Ours. ')
    versions = changed / "db/migrations/versions"
    for number in "12":
        text = f'revision = "aaaaaaaaaaa{number}"\ndown_revision: str | None = "{HEAD}"\n'
        (versions / f"{number}.py").write_text(text, encoding="utf-8")
    commit(changed, "Ours")
    newest = git(released, "rev-parse", "v0.4.0^{commit}").strip()
    state = json.loads((current / ".cruft.json").read_text(encoding="utf-8"))
    (current / ".cruft.json").write_text(json.dumps(state | {"commit": newest}), encoding="utf-8")
    (tmp_path / "none").mkdir()
    elsewhere = service("elsewhere")
    (elsewhere / ".cruft.json").write_text(json.dumps(state | {"commit": "a" * 40}), encoding="utf-8")
    before = files(tmp_path)
    names = ["untouched", "conflicting", "changed", "current", "none", "elsewhere"]
    fleet: list[str | Path] = [
        sys.executable,
        released / "scripts/fleet.py",
        *(tmp_path / name for name in names),
    ]
    rows: list[dict[str, Any]] = json.loads(run(*fleet, "--format", "json").output)
    expected = [
        ("v0.1.0", 3, [], "clean", 1),
        ("v0.1.0", 3, [], "conflicts", 1),
        ("v0.1.0", 3, ["chassis/errors.py"], "clean", 2),
        ("v0.4.0", 0, [], "up to date", 1),
        (None, None, None, None, None),
        (None, None, [], None, 1),
    ]
    keys = ("version", "behind", "changed", "update", "heads")
    assert [tuple(row[key] for key in keys) for row in rows] == expected
    assert [row["service"] for row in rows] == names
    assert [row["problem"] is None for row in rows] == [True] * 4 + [False] * 2
    table = run(*fleet).output.splitlines()
    assert re.fullmatch(r"changed +v0\.1\.0 +3 +1 +clean +2", table[3])
    assert re.fullmatch(r"none +\? +\? +\? +\? +\?", table[5])
    # What Python compiled aside, nothing was written, git's own folders included.
    assert files(tmp_path) == before


def release(folder: Path, version: str) -> Outcome:
    return run(sys.executable, folder / "scripts/release.py", version, check=False)


@pytest.fixture
def unreleased(tmp_path: Path) -> Path:
    folder = copy_of_template(tmp_path / "template")
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- New.\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    commit(folder, "One")
    return folder


def test_a_release_is_prepared(unreleased: Path) -> None:
    done = release(unreleased, "0.7.0")
    assert done.code == 0, done.output
    assert "git tag --annotate v0.7.0" in done.output
    assert "git push origin main v0.7.0" in done.output
    changed = git(unreleased, "diff", "--name-only").splitlines()
    chassis = f"{TEMPLATE_FOLDER}/chassis/__init__.py"
    assert changed == ["CHANGELOG.md", "pyproject.toml", chassis]
    log = (unreleased / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"## \[Unreleased\]\n\n## \[0\.7\.0\] - \d{4}-\d\d-\d\d\n\n- New\.", log)
    assert '__version__ = "0.7.0"' in (unreleased / chassis).read_text(encoding="utf-8")
    # The told commands, but for the push.
    for command in done.output.partition("then:\n")[2].strip().splitlines()[0].split("&&"):
        run("bash", "-ec", command, cwd=unreleased)
    assert git(unreleased, "describe").strip() == "v0.7.0"
    again = release(unreleased, "0.7.0")
    assert (again.code, "doesn't come after 0.7.0" in again.output) == (1, True)
    assert 'says nothing under "## [Unreleased]"' in release(unreleased, "0.8.0").output


def test_what_a_release_refuses_changes_nothing(unreleased: Path) -> None:
    log = unreleased / "CHANGELOG.md"
    by_hand = "# Changelog\n\n## [Unreleased]\n\n- New.\n\n### By hand\n\n"
    cases: list[tuple[str, str | None, str]] = [
        ("1.2", None, "is no version"),
        ("v1.x.0", None, "is no version"),
        ("1.0.0", None, "is a major version"),
        ("0.8.0", by_hand, '"### By hand" in CHANGELOG.md is empty'),
        ("0.8.0", "# Changelog\n", "says nothing under"),
    ]
    for version, text, says in cases:
        git(unreleased, "checkout", "--quiet", ".")
        if text:
            log.write_text(text, encoding="utf-8")
        before = git(unreleased, "diff")
        outcome = release(unreleased, version)
        assert (outcome.code, says in outcome.output) == (1, True), outcome.output
        assert git(unreleased, "diff") == before
    git(unreleased, "checkout", "--quiet", ".")
    (unreleased / "new.txt").touch()
    assert "uncommitted changes" in release(unreleased, "0.8.0").output


def test_the_documented_commands(tmp_path: Path, first: Workspace) -> None:
    """`make` passes on what is asked for."""
    git(tmp_path, "clone", "--quiet", str(first.path), "service")
    make = shutil.which("make")
    assert make
    told = run(make, "fleet", f"REPOS={tmp_path / 'service'}", "ARGS=--format json", cwd=ROOT).output
    assert json.loads(told)[0]["service"] == "service"
    refused = run(make, "release", "VERSION=x", cwd=ROOT, check=False)
    assert "is no version" in refused.output
