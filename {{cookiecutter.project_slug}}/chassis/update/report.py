"""What an update did and left to do, kept in git's folder until the next one, for people and for a pull request."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Self

from chassis.settings import ChassisError
from chassis.update.git import Repository
from chassis.update.template import by_hand

FILE = "chassis-update.json"
# What reading it raises where it isn't one of ours.
UNREADABLE = (OSError, ValueError, TypeError)


class NoUpdateError(ChassisError):
    """There is no update to go on with."""


@dataclass
class Report:
    """What is known of an update.

    Attributes:
        before, after: what the template's versions are called.
        head: the commit of the repository on which it stands.
        changelog: what has changed in the template.
        left: what the template has changed and stays as it is here: path and why.
        answers: to questions that weren't asked before: what was taken.
        done: what was done after the merge, a line each.
        left_to_do: a line each.
        conflicts: path and what it is.
        checks: what `python -m chassis check` found, a line a step.
        is_well: whether no step of it failed; None before it has run.
    """

    before: str
    after: str
    head: str
    changelog: str
    left: dict[str, str]
    answers: dict[str, str]
    done: list[str] = field(default_factory=list)
    left_to_do: list[str] = field(default_factory=list)
    conflicts: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    is_well: bool | None = None

    def save(self, git: Repository) -> None:
        """Keep it where git keeps its own things, which no command of git's takes away."""
        git.git_path(FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, git: Repository) -> Self:
        """Return what is kept of the update that is underway.

        Raises:
            NoUpdateError: where there is none, or its changes have been committed or undone.
        """
        try:
            report = cls(**json.loads(git.git_path(FILE).read_text(encoding="utf-8")))
        except UNREADABLE:
            report = None
        if (
            report is None
            or report.head != git.call("rev-parse", "HEAD").strip()
            or not git.call("status", "--porcelain")
        ):
            raise NoUpdateError("No update is underway. To begin one: python -m chassis update")
        return report

    @property
    def succeeded(self) -> bool:
        """Whether nothing is left that must be mended."""
        return not self.conflicts and self.is_well is not False

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each part's title and lines."""
        yield "Conflicts, to be mended first", [f"{path}: {what}" for path, what in self.conflicts.items()]
        yield "Done", self.done
        yield "Left as it is here", [f"{path}: {why}" for path, why in self.left.items()]
        yield (
            "New questions, and what was answered",
            [f"{name}: {answer} (otherwise: --answer {name}=…)" for name, answer in self.answers.items()],
        )
        yield "Checks", self.checks
        # The changelog's own lines have marks of their own.
        own = [line.removeprefix("- ") for line in by_hand(self.changelog).splitlines()]
        yield "To do by hand", own + self.left_to_do

    def text(self) -> str:
        """Write it for a terminal."""
        lines = [f"From {self.before} to {self.after}."]
        for title, entries in self.sections():
            if entries:
                lines += ["", title, *(f"  {entry}" for entry in entries)]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Write it for a pull request."""
        parts = [f"From {self.before} to {self.after} of the template."]
        for title, entries in self.sections():
            if entries:
                parts += [f"### {title}", "\n".join(f"- {entry}" for entry in entries)]
        if self.changelog:
            # One level lower, as its versions are parts here.
            lowered = self.changelog.replace("\n#", "\n##").replace("## ", "#### ", 1)
            parts += ["### What has changed in the template", lowered]
        return "\n\n".join(parts) + "\n"
