"""Where the workspace came from: `.cruft.json`, in the form of cruft, whose commands can read it too.

A repository that came from another template keeps that template's file, and ours lies in `chassis/`.
https://cruft.github.io/cruft/
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from chassis.settings import ChassisError

FILES = ("chassis/.cruft.json", ".cruft.json")
# Answers of the moment, which say nothing of the files.
MOMENTARY = ("init_git", "install")
ABBREVIATIONS = {
    "gh": "https://github.com/{}.git",
    "gl": "https://gitlab.com/{}.git",
    "bb": "https://bitbucket.org/{}",
}


class OriginError(ChassisError):
    """The file is missing or can't be used; the message says what to do."""


@dataclass(frozen=True)
class Origin:
    """Where the workspace came from.

    Attributes:
        file: in which it stands.
        address: the template's, as git takes it.
        commit: of the template.
        checkout: the branch or tag that was asked for, or None.
        directory: where in that repository the template is, or None for its top.
        answers: by question, as Cookiecutter's command takes them: it renders them.
        rest: what else the file holds.
    """

    file: str
    address: str
    commit: str
    checkout: str | None
    directory: str | None
    answers: dict[str, Any]
    rest: dict[str, Any]

    @classmethod
    def parse(cls, file: str, text: str) -> Self:
        """Read what a file holds.

        Raises:
            OriginError: where it isn't one of cruft's.
        """
        try:
            state = json.loads(text)
            answers = state.pop("context")["cookiecutter"]
            address, commit = str(state.pop("template")), str(state.pop("commit"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OriginError(f"{file} can't be read ({error}). Take it from an earlier commit.") from error
        name, colon, rest = address.partition(":")
        if colon and name in ABBREVIATIONS:
            address = ABBREVIATIONS[name].format(rest)
        # Private answers are made by the template's own of the day.
        answers = {name: value for name, value in answers.items() if not name.startswith("_")}
        checkout, directory = state.pop("checkout", None), state.pop("directory", None)
        return cls(file, address, commit, checkout, directory, answers, state)

    @classmethod
    def read(cls, workspace: Path) -> Self:
        """Read the workspace's file.

        Raises:
            OriginError: where there is none, or it can't be used.
        """
        file = next((name for name in FILES if (workspace / name).exists()), None)
        if file is None:
            raise OriginError(
                f"There is no {FILES[-1]}, which tells where this workspace came from. The README says how to make one, "
                'under "Take over changes of the template".'
            )
        return cls.parse(file, (workspace / file).read_text(encoding="utf-8"))

    def moved_to(self, commit: str, checkout: str | None, rendered: Path) -> Self:
        """Return what is true after an update, with the answers that the template has been rendered with."""
        new = self.read(rendered).answers
        kept = {name: self.answers[name] for name in MOMENTARY if name in self.answers}
        return replace(self, commit=commit, checkout=checkout, answers=new | kept)

    def write(self, workspace: Path) -> None:
        """Write the file."""
        state = {
            "template": self.address,
            "commit": self.commit,
            "checkout": self.checkout,
            "context": {"cookiecutter": self.answers},
            "directory": self.directory,
            **self.rest,
        }
        text = json.dumps(state, ensure_ascii=False, indent=2) + "\n"
        (workspace / self.file).write_text(text, encoding="utf-8", newline="\n")
