"""``python -m chassis update``: bring over what is new in the template, and say what is left to do.

Nothing is committed, so that it can be looked at, and undone by one command. What the template has changed is merged by
`chassis.update.merge`; all that follows, by `chassis.update.afterwards`, is run by the chassis that has come with it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chassis.settings import WORKSPACE, ChassisError
from chassis.update import afterwards
from chassis.update.git import GitError, Repository
from chassis.update.merge import MergeError, apply, kept, obstacles, plan
from chassis.update.origin import Origin, OriginError
from chassis.update.report import Report
from chassis.update.template import Template, TemplateError

# Jinja's marks, put together here so that the template doesn't take them for its own.
RAW, ENDRAW = (f"{{{mark}}}" for mark in ("% raw %", "% endraw %"))
COMMIT = "git add --all && git commit"


def refuse_what_is_unsafe(git: Repository) -> None:
    """Check that whatever comes can be undone.

    Raises:
        MergeError: saying what to do first.
    """
    try:
        git.call("rev-parse", "--verify", "HEAD")
    except GitError as error:
        raise MergeError(
            f"An update wants the workspace in a git repository, so that it can be undone. First: git init && {COMMIT}\n"
            f"(git says: {error})"
        ) from error
    changed = git.call("status", "--porcelain").splitlines()
    if changed:
        shown = "\n".join(f"  {line}" for line in [*changed[:5], *(["…"] if changed[5:] else [])])
        raise MergeError(
            f"There are uncommitted changes, from which those of the update could not be told:\n{shown}\n"
            f"Commit them, or put them away with: git stash --include-untracked"
        )


def answers_of(pairs: Sequence[str]) -> dict[str, str]:
    """Read answers as they are typed, and write them so that Cookiecutter, which renders them, leaves them as they are.

    Raises:
        ChassisError: for one without a question.
    """
    answers = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name or name.startswith("_"):
            raise ChassisError(
                f"An answer has the form QUESTION=ANSWER, for example use_ag_ui=yes, not {pair!r}."
            )
        answers[name] = f"{RAW}{value}{ENDRAW}" if "{" in value else value
    return answers


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that goes at the end, also if a program that was interrupted still writes into it for a moment."""
    name = ""
    pauses: list[float] = []
    try:
        with tempfile.TemporaryDirectory(prefix="update-", ignore_cleanup_errors=True) as name:
            yield Path(name)
    except KeyboardInterrupt:
        # What was being started just then isn't known of, and ends when it finds its folder gone.
        pauses = [0.2, 0.5, 1]
        raise
    finally:
        for pause in pauses:
            time.sleep(pause)
            shutil.rmtree(name, ignore_errors=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and that it is done."""
    print(f"... {title}", flush=True)
    yield
    print(f"ok  {title}", flush=True)


def update(git: Repository, wanted: str | None, answers: dict[str, str]) -> bool:
    """Merge the template's changes, and return whether there was anything to do.

    Raises:
        ChassisError: where it can't be done. Then nothing has been changed.
    """
    refuse_what_is_unsafe(git)
    origin, keep = Origin.read(git.folder), kept(git.folder)
    with temporary_folder() as place:
        with step("Fetch the template"):
            template = Template.clone(origin, place / "template")
        target, was = template.choose(origin, wanted), template.describe(origin.commit)
        if target.commit == origin.commit and not answers:
            print(f"Up to date: the template's newest is {target.name}, and this workspace has it.")
            return False
        with step(f"Render {was} and {target.name}"):
            old = template.render(origin.commit, origin.answers, place / "old")
            new = template.render(target.commit, origin.answers | answers, place / "new")
        if not (old / "chassis" / "__init__.py").exists():
            raise OriginError(
                f"{origin.file} is another template's, {origin.address}: this chassis isn't from there."
            )
        moved = origin.moved_to(target.commit, target.checkout, new)
        if unknown := sorted(set(answers) - set(moved.answers)):
            known = ", ".join(moved.answers)
            raise TemplateError(
                f"The template doesn't ask for {', '.join(unknown)}. Its questions are: {known}."
            )
        merged = plan(git, git.store(old), git.store(new), keep)
        if found := obstacles(git, merged):
            raise MergeError(
                f"git doesn't know of these files, and the template has files of the same name: {', '.join(found)}. "
                "Move them away first."
            )
        fresh = [name for name in moved.answers if name not in origin.answers and name not in answers]
        report = Report(
            before=was,
            after=target.name,
            head=git.call("rev-parse", "HEAD").strip(),
            changelog=template.changelog(origin.commit, target.commit),
            left=merged.left,
            answers={name: str(moved.answers[name]) for name in fresh},
        )
        report.save(git)
        with step("Merge"):
            apply(git, merged, f"the template's {target.name}")
        moved.write(git.folder)
        git.call("add", "--force", "--", origin.file)
    return True


def rest_of_it(options: argparse.Namespace) -> int:
    """Run what follows the merge by the chassis that is here now, with the packages that it wants."""
    words = ["--go-on", *(["--no-check"] if options.no_check else [])]
    words += ["--report", str(options.report.resolve())] if options.report else []
    return subprocess.run(
        [sys.executable, "-m", "chassis", "update", *words], cwd=WORKSPACE, check=False
    ).returncode


def main(arguments: Sequence[str]) -> int:
    """Update; return 0 if nothing is left that must be mended, else 1.

    Raises:
        ChassisError: where it can't be begun, with what to do.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chassis update",
        description="Bring over what is new in the template. Nothing is committed.",
    )
    parser.add_argument(
        "--to", metavar="VERSION", help="a tag, branch or commit; by default the newest version"
    )
    parser.add_argument(
        "--answer",
        metavar="QUESTION=ANSWER",
        action="append",
        default=[],
        help="answer a question otherwise, for example use_ag_ui=yes; may be given several times",
    )
    parser.add_argument("--go-on", action="store_true", help="go on once the conflicts are mended")
    parser.add_argument(
        "--no-check", action="store_true", help="don't run `python -m chassis check` at the end"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was done as Markdown too")
    options = parser.parse_args(arguments)
    git = Repository(WORKSPACE)
    if options.go_on:
        return afterwards.go_on(git, check=not options.no_check, file=options.report)
    if not update(git, options.to, answers_of(options.answer)):
        return 0
    return rest_of_it(options)
