"""Copies of a workspace's db/ and chassis/ with revisions of the test's own, and processes that run Alembic there."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

REVISION = '''"""{id}."""

import sqlalchemy as sa
from alembic import op

revision = "{id}"
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''


@dataclass
class Code:
    """A workspace's code at some version: what an image would hold."""

    path: Path
    python: Path
    head: str | None
    ids: list[str] = field(default_factory=list)

    @classmethod
    def copy(cls, workspace: Path, to: Path) -> Self:
        for part in ("chassis", "db"):
            shutil.copytree(workspace / part, to / part)
        shutil.copy(workspace / "pyproject.toml", to)
        newest = max((to / "db/migrations/versions").glob("*.py"))
        return cls(to, workspace / ".venv/bin/python", newest.stem.split("-")[1].split("_")[0])

    def newer(self, to: Path) -> "Code":
        """The next version of the code, to which revisions can be added without changing this one."""
        shutil.copytree(self.path, to)
        return Code(to, self.python, self.head, list(self.ids))

    def add(
        self, name: str, upgrade: str, downgrade: str = "pass", down: str | tuple[str, ...] | None = None
    ) -> None:
        """Add a revision of this `name`; `upgrade` and `downgrade` are Python statements."""
        text = REVISION.format(
            id=name, down=down or self.head, upgrade=_indent(upgrade), downgrade=_indent(downgrade)
        )
        (self.path / f"db/migrations/versions/2030_01_01_{len(self.ids):04}-{name}.py").write_text(text)
        self.ids.append(name)
        if down is None:
            self.head = name

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DB_", "MIGRATE_", "PG"))
        }
        return {**kept, **env}

    def start(self, env: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
        """Start Alembic; its output comes as one text, errors included."""
        return subprocess.Popen(
            [self.python, "-m", "alembic", "-c", self.path / "db/alembic.ini", *arguments],
            env=self.environment(env),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def alembic(self, env: dict[str, str], *arguments: str, timeout: float = 120) -> tuple[int, str]:
        """Run Alembic and return its exit code and output."""
        process = self.start(env, *arguments)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def run(self, env: dict[str, str], *arguments: str, timeout: float = 120) -> tuple[int, str]:
        """Run this code's Python and return its exit code and output."""
        done = subprocess.run(
            [self.python, *arguments],
            env=self.environment(env),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout

    def replicas(self, env: dict[str, str], number: int, *arguments: str) -> list[tuple[int, str]]:
        """Run Alembic in so many processes that start at the same moment."""
        done = subprocess.run(
            [
                self.python,
                Path(__file__).with_name("forks.py"),
                str(number),
                "-c",
                self.path / "db/alembic.ini",
                *arguments,
            ],
            env=self.environment(env),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        outcomes = done.stdout.split("\0")[1:]
        return [(int(code), output) for code, _, output in (outcome.partition("\n") for outcome in outcomes)]


def _indent(statements: str) -> str:
    return "\n".join("    " + line for line in statements.strip().splitlines())
