"""What follows the merge: packages, one head, all checks, and what is left to do."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from chassis.settings import WORKSPACE
from chassis.update.git import Repository
from chassis.update.merge import RELEASED, REVISIONS, conflicts
from chassis.update.report import Report
from chassis.update.template import find_uv

LOCK, PROJECT = "uv.lock", "pyproject.toml"
DROP = (
    "The revisions of what is switched off stay, as databases are at them, and so do its tables: `check` tells them. A "
    'revision drops them: alembic -c db/alembic.ini revision --autogenerate -m "Drop what is switched off"'
)
UNDO = "git reset --hard"


def go_on(git: Repository, *, check: bool, file: Path | None) -> int:
    """Do what is left once there is no conflict, and say what was done; return 0 if nothing must be mended, else 1.

    Args:
        git: the workspace's repository.
        check: whether to run all checks.
        file: where to write the report as Markdown, None for nowhere.

    Raises:
        ChassisError: where no update is underway.
    """
    report = Report.load(git)
    report.done, report.left_to_do, report.checks, report.is_well = [], [], [], None
    report.conflicts = conflicts(git)
    if not report.conflicts:
        install(git, report)
        join_heads(git, report)
        if RELEASED in report.left.values():
            report.left_to_do.append(DROP)
        if check:
            run_checks(report)
    report.done.insert(0, changed(git))
    if file:
        file.write_text(report.markdown(), encoding="utf-8")
    print(f"\n{report.text()}\n")
    if report.conflicts:
        print("Mend them and `git add` each, then go on with: python -m chassis update --go-on")
    else:
        print("See it with: git diff --cached       Keep it with: git commit")
    print(f"Undo all of it with: {UNDO}")
    return 0 if report.succeeded else 1


def changed(git: Repository) -> str:
    """Say how many files are changed."""
    lines = git.call("diff", "--cached", "--name-status", "--find-renames", "HEAD", "--", ".").splitlines()
    kinds = [line[0] for line in lines]
    counts = {"M": "changed", "A": "new", "D": "removed", "R": "renamed"}
    return f"Files: {', '.join(f'{kinds.count(kind)} {word}' for kind, word in counts.items())}"


def install(git: Repository, report: Report) -> None:
    """Renew `uv.lock` and what is installed, where the packages that are wanted have changed."""
    if not git.names("diff", "--cached", "--name-only", "-z", "HEAD", "--", PROJECT):
        return
    if not (git.folder / LOCK).exists():
        report.left_to_do.append(f"{PROJECT} has changed: install the packages, as the README says.")
        return
    uv = find_uv()
    if uv is None:
        report.left_to_do.append(
            f"{PROJECT} has changed and uv isn't here: install the packages, and renew {LOCK}."
        )
        return
    # What somebody has installed besides stays.
    if run([uv, "sync", "--inexact"]) != 0:
        report.left_to_do.append("The packages could not be installed, see above: uv sync")
        report.is_well = False
        return
    if git.tells("ls-files", "--error-unmatch", LOCK):
        git.call("add", "--", LOCK)
    report.done.append(f"Packages installed, and {LOCK} renewed")


def join_heads(git: Repository, report: Report) -> None:
    """Write a merge revision where the template's revisions and the team's end in several heads."""
    if not git.names("diff", "--cached", "--name-only", "-z", "--diff-filter=A", "HEAD", "--", REVISIONS):
        return
    alembic = [sys.executable, "-m", "alembic", "-c", "db/alembic.ini"]
    if find_spec("alembic") is None:
        report.left_to_do.append(
            "The template has brought revisions. Alembic isn't installed here: alembic heads"
        )
        return
    told = subprocess.run(
        [*alembic, "heads"], cwd=WORKSPACE, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False
    )
    heads = [line.split()[0] for line in told.stdout.splitlines() if line.strip()]
    if told.returncode != 0 or len(heads) < 2:
        report.is_well = report.is_well if told.returncode == 0 else False
        return
    why = f"Join our revisions and those of the template {report.after}"
    if run([*alembic, "merge", "-m", why, *heads]) != 0:
        report.left_to_do.append(f"Join the heads {', '.join(heads)}: alembic -c db/alembic.ini merge heads")
        report.is_well = False
        return
    git.call("add", "--", REVISIONS)
    report.done.append(f"Heads joined by a merge revision: {', '.join(heads)}")


def run_checks(report: Report) -> None:
    """Run all checks, and keep what each step came to."""
    # What is new is new against the last commit.
    command = [sys.executable, "-m", "chassis", "check", "--base", "HEAD"]
    with subprocess.Popen(
        command, cwd=WORKSPACE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith("== ") and (": ok" in line or ": FAILED" in line):
                report.checks.append(line.removeprefix("== ").strip())
    report.is_well = process.returncode == 0 and report.is_well is not False
    if not report.is_well:
        report.left_to_do.append("Mend what the checks have found, then: python -m chassis check")


def run(command: Sequence[str]) -> int:
    """Run a command in the workspace, and return its exit code."""
    print(f"... {' '.join(Path(word).name if word == command[0] else word for word in command)}", flush=True)
    return subprocess.run(command, cwd=WORKSPACE, check=False).returncode
