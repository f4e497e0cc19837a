"""The code of the last release, in a process of its own, at work on the database of the trial."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import Connection, MetaData

from chassis.lint import exercise
from chassis.lint.errors import LintError
from chassis.lint.exercise import Failures
from chassis.lint.released import Base


class OldCode(Protocol):
    """Whatever has classes of a release and can let them work."""

    @property
    def tables(self) -> Collection[str]:
        """The tables that the classes have, as they spell them."""

    def work(self, connection: Connection, only: Collection[str] | None = None) -> Failures:
        """Read, insert, update and delete with the classes, on these tables or all; return what failed."""


class OfClasses:
    """Classes that this process has, or tables as they were."""

    def __init__(self, metadata: MetaData, mappers: Collection[object] = ()) -> None:
        self._tables = exercise.mapped(metadata, mappers)
        self.tables = {table.fullname for table in self._tables}

    def work(self, connection: Connection, only: Collection[str] | None = None) -> Failures:
        """See `OldCode`."""
        connection.rollback()
        return exercise.exercise(connection, self._tables, only)


class OfCommit:
    """The classes of a commit."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self._answers = iter(process.stdout or ())
        self._tables: set[str] | None = None

    @property
    def tables(self) -> set[str]:
        """See `OldCode`; waits until the classes are read."""
        if self._tables is None:
            self._tables = set(json.loads(self._ask(None)))
        return self._tables

    def work(self, connection: Connection, only: Collection[str] | None = None) -> Failures:
        """See `OldCode`."""
        wanted = sorted(self.tables if only is None else only)
        url = connection.engine.url.render_as_string(hide_password=False)
        answer = json.loads(self._ask(json.dumps([url, wanted])))
        return {(table, what, column): said for table, what, column, said in answer}

    def _ask(self, line: str | None) -> str:
        try:
            if line is not None:
                print(line, file=self._process.stdin, flush=True)
            answer = next(self._answers, "")
        except OSError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise OldCodeError(said[-1] if said else "it ended at once")
        return answer


class OldCodeError(LintError):
    """The classes of the last release can't be used; the message says why."""


@contextmanager
def at(base: Base) -> Iterator[OfCommit | None]:
    """Start the code of the base and stop it at the end; None where there is none."""
    with tempfile.TemporaryDirectory(prefix="lint-") as name:
        if not base.write(Path(name)):
            yield None
            return
        command = [sys.executable, exercise.__file__, name]
        pipe = subprocess.PIPE
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8") as process,
        ):
            try:
                yield OfCommit(process, errors)
            finally:
                process.kill()


def explain(key: tuple[str, str, str], said: str) -> tuple[str, str]:
    """Return the rule, and what happens to the containers that still run the last release."""
    table, what, column = key
    place = f"`{table}.{column}`" if column else f"`{table}`"
    last = "the last release"
    match what:
        case "read":
            way = "First release code that doesn't read it, then drop or rename it."
            return (
                f"{'column' if column else 'table'}-still-read",
                f"The last release reads {place}: {said}. {way}",
            )
        case "null":
            way = "First release code that reads it as optional."
            return "null-unexpected", f"{place} may be NULL now, and to the code of {last} it never is. {way}"
        case "unique" | "reference":
            kind = "unique" if what == "unique" else "a reference"
            way = "First release code that does without."
            return (
                "constraint-relied-on",
                f"For the code of {last} {place} is {kind}, and nothing keeps it so. {way}",
            )
        case _:
            does = {"insert": "insert into", "update": "update", "delete": "delete rows of"}[what]
            way = "Let what is new have a default, or be NULL, until no container of that release is left."
            return "write-breaks", f"The last release can't {does} {place} any more: {said}. {way}"
