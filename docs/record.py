# /// script
# requires-python = ">=3.11"
# dependencies = ["pyte>=0.8.2,<0.9"]
# ///
"""Record commands in a real terminal and draw them as docs/demo.svg and docs/lint.svg: ``uv run docs/record.py demo lint``.

Everything in the pictures was printed by the commands themselves. Only the name of the temporary home
folder is shown as ~, and long waits are cut. What is recorded is the last commit.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyte
from animation import LABEL, Frame, draw

REPOSITORY = Path(__file__).resolve().parent.parent
# So many lines that nothing scrolls away: the picture scrolls instead.
COLUMNS, LINES = 100, 200

COMMANDS = {
    "demo": (
        "uvx cookiecutter cookiecutter-agent-api",
        "cd support-api",
        "uv run alembic -c db/alembic.ini upgrade head",
        "uv run uvicorn api.main:app &> server.log &",
        """curl -s --json '{"input": "What time is it?"}' localhost:8000/v1/agents/assistant/runs | python3 -m json.tool""",
    ),
    "lint": (
        "cd agent-api",
        "sed -n 12,15p db/migrations/versions/*_runs_have_a_price.py",
        "uv run python -m chassis lint",
    ),
}
LABELS = {
    "demo": LABEL,
    "lint": "A terminal: the check shows what each statement of a revision does to the tables, and three findings",
}
# What somebody writes who has never heard of locks.
REVISION = """\
\"\"\"Runs have a price.\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "5d0c1f7a9e32"
down_revision = "{head}"


def upgrade() -> None:
    \"\"\"Add the price, for which the old text goes.\"\"\"
    op.add_column("runs", sa.Column("price", sa.Numeric(12, 6), nullable=True))
    op.execute("UPDATE runs SET price = 0")
    op.create_index("ix_runs_model", "runs", ["model"])
    op.drop_column("runs", "error")


def downgrade() -> None:
    \"\"\"Take it back.\"\"\"
    op.add_column("runs", sa.Column("error", sa.Text(), nullable=True))
    op.drop_index("ix_runs_model", "runs")
    op.drop_column("runs", "price")
"""
# Part of a question -> what is typed; at all others just Enter, for the default.
ANSWERS = {"called": "Support API"}

PROMPT = re.compile(r"~\S* \$ $")
QUESTION = re.compile(r"\): ?$")
PORT = 8000
TIMEOUT = 180.0
KEY_PAUSE, ENTER_PAUSE, READING_PAUSE, LONGEST_PAUSE = 0.045, 0.35, 1.2, 1.5


class Terminal:
    """A shell in a pseudo-terminal, the screen it writes to, and a frame for each change of that screen."""

    def __init__(self, home: Path) -> None:
        """Start the shell in the folder `home`, which is also its HOME."""
        self.home = home
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.frames: list[Frame] = []
        self.clock = 0.0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe("bash", ["bash", "--noprofile", "--norc", "-i"], environment(home))  # noqa: S606
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def line(self) -> str:
        """Return what stands before the cursor, in the row above where a full row has wrapped."""
        x, y = self.screen.cursor.x, self.screen.cursor.y
        return self.screen.display[y][:x] or self.screen.display[y - 1]

    def type(self, text: str) -> None:
        """Type a text key by key, look at it, and press Enter."""
        for key in text:
            os.write(self.fd, key.encode())
            self.read_for(KEY_PAUSE)
        self.read_for(ENTER_PAUSE)
        os.write(self.fd, b"\r")

    def wait_for(self, *patterns: re.Pattern[str]) -> re.Pattern[str]:
        """Wait until the line of the cursor matches a pattern and nothing more is printed; return the pattern."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            quiet = not self.read_for(0.15)
            matched = next((pattern for pattern in patterns if pattern.search(self.line())), None)
            if quiet and matched:
                return matched
        shown = "\n".join(line.rstrip() for line in self.screen.display if line.strip())
        sys.exit(f"The terminal waits for something that isn't expected:\n{shown}")

    def read_for(self, seconds: float) -> bool:
        """Take in what is printed for so long; return whether there was anything."""
        until = time.monotonic() + seconds
        printed = b""
        while (left := until - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                printed += os.read(self.fd, 65536)
        if printed:
            self.stream.feed(printed.replace(str(self.home).encode(), b"~"))
            self.frames.append(
                Frame(self.clock, rows_of(self.screen), (self.screen.cursor.x, self.screen.cursor.y))
            )
        self.clock += seconds
        return bool(printed)

    def close(self) -> None:
        """End what runs in the background, its database too, and then the shell."""
        os.write(self.fd, b"kill -INT %1; wait; exit\r")
        with suppress(OSError):  # Linux says so when the last writer has gone
            while os.read(self.fd, 65536):
                pass
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def rows_of(screen: pyte.Screen) -> list[tuple[tuple[str, str, bool], ...]]:
    """Return each row as runs of (text, colour, bold) without blanks at the end."""
    rows = []
    for y in range(LINES):
        runs: list[tuple[str, str, bool]] = []
        for x in range(COLUMNS):
            char = screen.buffer[y][x]
            if runs and runs[-1][1:] == (char.fg, char.bold):
                runs[-1] = (runs[-1][0] + char.data, char.fg, char.bold)
            else:
                runs.append((char.data, char.fg, char.bold))
        while runs and not runs[-1][0].strip():
            runs.pop()
        rows.append(tuple(runs))
    return rows


def environment(home: Path) -> dict[str, str]:
    """Return a newcomer's environment: an empty home, this machine's programs, and uv's packages at hand."""
    cache = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    kept = {
        name: value for name, value in os.environ.items() if re.fullmatch(r"PATH|LANG|(UV|PIP|SSL)_.*", name)
    }
    return kept | {
        "HOME": str(home),
        "TERM": "xterm-256color",
        "PS1": r"\w $ ",
        "UV_CACHE_DIR": cache,
    }


def prepare(home: Path) -> None:
    """Lay the template and a git identity into the home folder, and have uv's cache warm."""
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, home / "cookiecutter-agent-api"], check=True)
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")
    subprocess.run(
        ["uvx", "cookiecutter", "--version"], check=True, env=environment(home), stdout=subprocess.DEVNULL
    )


def prepare_lint(home: Path) -> None:
    """Lay a workspace there too, with a revision that nobody has reviewed."""
    bake = ["uvx", "--quiet", "cookiecutter", "--no-input", "cookiecutter-agent-api"]
    subprocess.run(bake, cwd=home, check=True, env=environment(home), stdout=subprocess.DEVNULL)
    alembic = ["uv", "run", "--directory", "agent-api", "alembic", "-c", "db/alembic.ini", "heads"]
    heads = subprocess.run(
        alembic, cwd=home, check=True, env=environment(home), capture_output=True, text=True
    )
    file = home / "agent-api/db/migrations/versions/2026_11_30_0900-5d0c1f7a9e32_runs_have_a_price.py"
    file.write_text(REVISION.format(head=heads.stdout.split()[0]), encoding="utf-8")


def server_answers() -> bool:
    """Whether something listens where the service will."""
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", PORT)) == 0


def shortened(frames: list[Frame]) -> Iterator[Frame]:
    """Give the frames with long waits cut."""
    clock = last = 0.0
    for frame in frames:
        clock, last = clock + min(frame.time - last, LONGEST_PAUSE), frame.time
        yield Frame(clock, frame.rows, frame.cursor)


def record(name: str) -> None:
    """Record the commands and write the picture."""
    picture = REPOSITORY / "docs" / f"{name}.svg"
    with tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve()
        prepare(home)
        if name == "lint":
            prepare_lint(home)
        terminal = Terminal(home)
        try:
            terminal.wait_for(PROMPT)
            for command in COMMANDS[name]:
                terminal.type(command)
                while terminal.wait_for(PROMPT, QUESTION) is QUESTION:
                    question = terminal.line()
                    terminal.type(next((text for part, text in ANSWERS.items() if part in question), ""))
                while command.endswith("&") and not server_answers():
                    terminal.read_for(READING_PAUSE)
                terminal.read_for(READING_PAUSE)
        finally:
            terminal.close()
    svg = draw(list(shortened(terminal.frames)), COLUMNS, LABELS[name])
    picture.write_text(svg, encoding="utf-8")
    sys.stdout.write(f"{picture.relative_to(REPOSITORY)}: {picture.stat().st_size / 1000:.0f} kB\n")


def main(names: list[str]) -> None:
    """Write the pictures that are named."""
    if shutil.which("uv") is None:
        sys.exit(
            "uv is missing, which installs the packages that are shown. Install it, then: uv run docs/record.py demo"
        )
    if not names or not set(names) <= set(COMMANDS):
        sys.exit(f"Name the pictures: {' '.join(COMMANDS)}")
    if server_answers():
        sys.exit(f"Port {PORT} is taken, on which the service in the picture listens. Stop what uses it.")
    for name in names:
        record(name)


if __name__ == "__main__":
    main(sys.argv[1:])
