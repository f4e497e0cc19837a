"""Running commands, as a script does and as a person at a terminal does."""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(sys.executable).parent
UV = TOOLS / "uv"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str


def run(
    *command: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str | None] | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 300,
) -> Outcome:
    """Run a command and return its exit code and all it printed.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        env: variables to set, or with None to take away, in the tests' own clean environment.
        stdin: what it reads; nothing, unless given.
        check: whether to fail the test where the command fails.
        timeout: in seconds, after which the test fails.
    """
    variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=variables,
        input=stdin or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    outcome = Outcome(done.returncode, done.stdout)
    if check:
        assert outcome.code == 0, f"{' '.join(map(str, command))} failed:\n{outcome.output}"
    return outcome


def at_terminal(
    command: Sequence[str],
    answers: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Outcome:
    """Run a command at a terminal and type one answer at each prompt; an empty one takes the default."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "500", **(env or {})},
        start_new_session=True,
    )
    os.close(theirs)
    waiting = list(answers)
    seen, unanswered, until = "", "", time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # Linux: the other end is closed
                    piece = os.read(ours, 65536).decode("utf-8", "replace")
                    seen += piece
                    unanswered += piece
                    if waiting and re.search(r"\)\S*: \S*$", unanswered):
                        os.write(ours, (waiting.pop(0) + "\n").encode())
                        unanswered = ""
                    continue
            if process.poll() is not None:
                break
        else:
            raise AssertionError(f"no end after {seconds} s: {seen}")
    finally:
        process.kill()
        code = process.wait()
        os.close(ours)
    assert not waiting or code != 0, f"not asked for: {waiting}\n{seen}"
    return Outcome(code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).replace("\r\n", "\n"))
