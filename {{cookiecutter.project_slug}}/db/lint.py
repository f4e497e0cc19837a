"""See an unsafe migration before it runs: ``python -m db.lint``, for people and for CI.

Looks at the revisions that are new since the base (``--base``, by default the main branch on the
server, or else the last commit), and at the history as a whole:

- the SQL of each new revision, by squawk (https://squawkhq.com), for what would stop traffic;
- several heads; a revision that was edited or removed after it was released; one without a way back;
- a difference between tables and revisions, and all else that `db.verify` finds.

A deliberate exception is a comment in the revision's file, for its reviewers to see:
``# lint: allow RULE -- reason``, with a rule of squawk's, ``edited`` or ``irreversible``.
"""

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from db.settings import WORKSPACE, SettingsError
from db.verify import ALEMBIC_INI, VerificationError, verify

VERSIONS = "db/migrations/versions"
SQUAWK = Path(sys.executable).with_name("squawk")
EXCEPTION = re.compile(r"^\s*# lint: allow ([\w-]+) -- \S", re.MULTILINE)

# What squawk asks for and the workspace sees to otherwise: env.py sets lock_timeout and retries, a
# revision is one transaction, and the rest is style, which autogenerate decides.
SEEN_TO = ("require-lock-timeout", "require-statement-timeout", "prefer-robust-stmts", "prefer-bigint-over-int",
           "prefer-bigint-over-smallint", "prefer-identity", "prefer-text-field", "require-table-schema")  # fmt: skip


class LintError(Exception):
    """The check itself can't be made; the message says what to do."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file."""

    path: Path
    rule: str
    message: str

    def __str__(self) -> str:
        """The line to print."""
        return f"{self.path.name}: {self.rule}: {self.message}"


def find_all(base: str | None) -> Iterator[Finding]:
    """Find what is wrong with the revisions.

    Raises:
        LintError: for a base that git doesn't know, and for revisions that can't be read or rendered.
    """
    config = Config(ALEMBIC_INI)
    script = ScriptDirectory.from_config(config)
    try:
        heads = script.get_heads()
    except KeyError as error:
        raise LintError(f"A revision follows {error}, whose file isn't here: restore it.") from error
    except Exception as error:
        raise LintError(f"A revision can't be read: {type(error).__name__}: {error}") from error
    if len(heads) != 1:
        # Nothing else can be told before they are joined.
        yield Finding(
            Path(VERSIONS), "heads", "there are several: alembic -c db/alembic.ini merge -m '...' heads"
        )
        return
    released = _released(base)
    for name in released:
        yield from _check_unchanged(name, released[name])
    for revision in reversed(list(script.walk_revisions())):
        if Path(revision.path).name not in released:
            findings = [*_check_downgrade(revision), *_check_sql(config, script, revision)]
            allowed = _allowed(Path(revision.path).read_text(encoding="utf-8"))
            yield from (finding for finding in findings if finding.rule not in allowed)


def _released(base: str | None) -> dict[str, str]:
    """The revisions' files at the base, name -> content. None where there is no git to ask."""
    if _git("rev-parse", "--git-dir") is None:
        print("No git repository here: every revision counts as new.")
        return {}
    candidates = [base] if base else ["origin/HEAD", "origin/main", "HEAD"]
    known = [ref for ref in candidates if _git("rev-parse", "--verify", "--quiet", f"{ref}^0")]
    if not known:
        if base:
            raise LintError(f"git knows no {base}. Fetch it, or name another base: --base main")
        return {}
    ancestor = (_git("merge-base", "HEAD", known[0]) or "").strip() or known[0]
    names = (_git("ls-tree", "-z", "--name-only", ancestor, f"{VERSIONS}/") or "").split("\0")
    return {
        Path(name).name: _git("show", f"{ancestor}:./{name}") or "" for name in names if name.endswith(".py")
    }


def _git(*arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=WORKSPACE, capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _check_unchanged(name: str, before: str) -> Iterator[Finding]:
    path = WORKSPACE / VERSIONS / name
    if not path.exists():
        yield Finding(
            path,
            "removed",
            "databases may be at this revision. Restore it; take its change back in a new one.",
        )
    elif (now := path.read_text(encoding="utf-8")) != before and "edited" not in _allowed(now):
        yield Finding(
            path, "edited", "databases have run it as it was. Restore it; put the change into a new revision."
        )


def _check_downgrade(revision: Script) -> Iterator[Finding]:
    """Find a downgrade that does nothing, or refuses, where the upgrade does something."""
    functions = {
        node.name: [statement for statement in node.body if not _is_nothing(statement)]
        for node in ast.parse(Path(revision.path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    way_back = functions.get("downgrade", [])
    if functions.get("upgrade") and all(isinstance(statement, ast.Raise) for statement in way_back):
        yield Finding(
            Path(revision.path), "irreversible", "downgrade() doesn't take back what upgrade() does."
        )


def _is_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _check_sql(config: Config, script: ScriptDirectory, revision: Script) -> Iterator[Finding]:
    """Render the SQL of this revision alone and let squawk read it."""
    config.output_buffer = io.StringIO()
    try:
        with EnvironmentContext(
            config,
            script,
            fn=lambda current, context: [MigrationStep.upgrade_from_script(script.revision_map, revision)],
            as_sql=True,
            starting_rev=revision.down_revision,
        ):
            script.run_env()
    except Exception as error:
        raise LintError(
            f"{Path(revision.path).name} can't be rendered as SQL: {type(error).__name__}: {error}. Without a "
            "database op.get_bind() has nothing to ask: let the SQL decide, in op.execute()."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "revision.sql"
        file.write_text(config.output_buffer.getvalue(), encoding="utf-8")
        excluded = [f"--exclude={rule}" for rule in SEEN_TO]
        try:
            done = subprocess.run(
                [SQUAWK, "--reporter=json", *excluded, file], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise LintError(
                "squawk isn't installed here. Install the development packages: uv sync"
            ) from None
    if not done.stdout.strip():
        raise LintError(f"squawk failed: {done.stderr.strip()}")
    for found in json.loads(done.stdout):
        message = " ".join(f"{found['message']} {found.get('help') or ''}".split())
        yield Finding(Path(revision.path), found["rule_name"], message)


def _allowed(source: str) -> set[str]:
    return set(EXCEPTION.findall(source))


def main() -> int:
    """Print the findings and return the exit code: 0 if there are none, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m db.lint", description="See an unsafe migration before it runs."
    )
    parser.add_argument("--base", help="the git revision that counts as released, for example origin/main")
    base = parser.parse_args().base
    try:
        findings = list(find_all(base))
        for finding in findings:
            print(finding)
        if findings:
            print(
                "\nMend it, or allow it in the file: # lint: allow RULE -- reason. See db/SAFE_MIGRATIONS.md."
            )
            return 1
        verify(print)
    except (LintError, VerificationError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
