"""What is wrong with a revision by its text: its file was edited, it has no way back, or squawk complains of its SQL."""

import ast
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from chassis.lint.errors import LintError
from chassis.lint.findings import KEPT, Finding
from chassis.lint.released import VERSIONS
from chassis.settings import WORKSPACE

SQUAWK = Path(sys.executable).with_name("squawk")


def find_edited(released: Mapping[str, str]) -> Iterator[Finding]:
    """Find released revisions that were changed or removed; `released` is their files, name -> content."""
    for name, before in released.items():
        path = WORKSPACE / VERSIONS / name
        if not path.exists():
            yield Finding(
                path,
                "removed",
                "databases may be at this revision. Restore it; take its change back in a new one.",
            )
        elif path.read_text(encoding="utf-8") != before:
            yield Finding(
                path,
                "edited",
                "databases have run it as it was. Restore it; put the change into a new revision.",
            )


def find_irreversible(revision: Script) -> Iterator[Finding]:
    """Find a downgrade that does nothing, or refuses, where the upgrade does something."""
    functions = {
        node.name: node
        for node in ast.parse(Path(revision.path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    upgrade, downgrade = (
        [s for s in functions[name].body if not _is_nothing(s)] if name in functions else []
        for name in ("upgrade", "downgrade")
    )
    if upgrade and all(isinstance(statement, ast.Raise) for statement in downgrade):
        line = functions["downgrade"].lineno if "downgrade" in functions else 0
        yield Finding(
            Path(revision.path), "irreversible", "downgrade() doesn't take back what upgrade() does.", line
        )


def _is_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def find_in_sql(config: Config, script: ScriptDirectory, revisions: Sequence[Script]) -> Iterator[Finding]:
    """Render the SQL of each revision and let squawk read all of it.

    Raises:
        LintError: where one can't be rendered, or squawk isn't there.
    """
    with tempfile.TemporaryDirectory() as name:
        files = {Path(name) / f"{number}.sql": revision for number, revision in enumerate(revisions)}
        for file, revision in files.items():
            file.write_text(_render(config, script, revision), encoding="utf-8")
        for found in _squawk(list(files)):
            if found["rule_name"] in KEPT:
                message = " ".join(f"{found['message']} {found.get('help') or ''}".split())
                yield Finding(Path(files[Path(found["file"])].path), found["rule_name"], message)


def _render(config: Config, script: ScriptDirectory, revision: Script) -> str:
    buffer = io.StringIO()
    kept, config.output_buffer = config.output_buffer, buffer
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
    finally:
        config.output_buffer = kept
    return buffer.getvalue()


def _squawk(files: Sequence[Path]) -> list[dict[str, str]]:
    if not files:
        return []
    try:
        done = subprocess.run(
            [SQUAWK, "--reporter=json", *files], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise LintError("squawk isn't installed here. Install the development packages: uv sync") from None
    if not done.stdout.strip():
        raise LintError(f"squawk failed: {done.stderr.strip()}")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
