"""See what a new revision does before anybody reviews it: ``python -m chassis lint``, for people and for CI.

Looks at the revisions that are new since the base (``--base``, by default the main branch on the server, or else the
last commit), and at the history as a whole:

- each new revision is run on a throw-away PostgreSQL with rows in every table, and watched: what it locks, rewrites,
  reads and changes (`chassis.lint.effects`), where it fails on rows, what the code of the last release can't do
  afterwards (`chassis.lint.old_code`), what the way back loses;
- what can't be seen there is found in the text: by squawk (https://squawkhq.com), several heads, a revision that was
  edited or removed after it was released, one without a way back;
- whatever `chassis.migrations.verify` finds.

A deliberate exception is a comment in the revision's file, for its reviewers to see:
``# lint: allow RULE -- reason``.
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL

from chassis.database import embedded
from chassis.lint import old_code, source
from chassis.lint.errors import LintError
from chassis.lint.findings import Finding, is_allowed, is_small
from chassis.lint.released import VERSIONS, Base, find_base
from chassis.lint.report import FORMATS
from chassis.lint.trial import OWN_ROWS, Report, Trial
from chassis.migrations.verify import verify
from chassis.settings import ALEMBIC_INI, WORKSPACE


def read_history(config: Config) -> ScriptDirectory:
    """Return the revisions.

    Raises:
        LintError: where they can't be read.
    """
    script = ScriptDirectory.from_config(config)
    try:
        script.get_heads()
    except KeyError as error:
        raise LintError(f"A revision follows {error}, whose file isn't here: restore it.") from error
    except Exception as error:
        raise LintError(f"A revision can't be read: {type(error).__name__}: {error}") from error
    return script


def new_revisions(script: ScriptDirectory, base: Base) -> list[Script]:
    """Return the revisions that the base doesn't have, in the order in which they run."""
    released = base.revisions
    return [r for r in reversed(list(script.walk_revisions())) if Path(r.path).name not in released]


def find_all(
    config: Config,
    script: ScriptDirectory,
    base: Base,
    new: Sequence[Script],
    classes: old_code.OldCode | None,
    server: URL,
) -> Report:
    """Find what is wrong with the new revisions and with the history.

    Args:
        config: names the revisions.
        script: all of them.
        base: what counts as released.
        new: those that aren't.
        classes: the code of the base, at work.
        server: any database of a server that nobody needs.

    Raises:
        LintError: where the check can't be made.
    """
    found = [
        *source.find_edited(base.revisions),
        *(finding for revision in new for finding in source.find_irreversible(revision)),
        *source.find_in_sql(config, script, new),
    ]
    report = Report()
    if new:
        own_rows = base.read(OWN_ROWS) or _own_rows()
        known = base.commit is not None
        report = Trial(config, server, new, classes=classes, base_known=known, own_rows=own_rows).run()
    report.findings = list(_that_count(config, [*found, *report.findings]))
    return report


def _own_rows() -> str:
    path = WORKSPACE / OWN_ROWS
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _that_count(config: Config, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Leave out what is said twice, what is allowed in the file, and what only its size would make dangerous."""
    small = (config.get_main_option("small_tables") or "").split()
    for finding in sorted(dict.fromkeys(findings), key=lambda f: (f.path.name, f.line)):
        text = finding.path.read_text(encoding="utf-8") if finding.path.is_file() else ""
        if not is_allowed(finding, text) and not is_small(finding, small):
            yield finding


def _wrapped(line: str) -> str:
    """Break a line between words where a person looks at it; programs and logs get it whole."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if len(line) <= width or not width:
        return line
    return textwrap.fill(
        line, width, subsequent_indent="        ", break_long_words=False, break_on_hyphens=False
    )


def main(arguments: Sequence[str]) -> int:
    """Print what was seen and return the exit code: 0 if nothing was found, else 1.

    Raises:
        ChassisError: where the check can't be made, or the verification fails.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chassis lint", description="See what a new revision does before anybody reviews it."
    )
    parser.add_argument("--base", help="the git revision that counts as released, for example origin/main")
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to say it (default: text)")
    options = parser.parse_args(arguments)
    config = Config(ALEMBIC_INI)
    script = read_history(config)
    base = find_base(options.base)
    if base.commit is None:
        print("Nothing is released yet that git knows of: every revision counts as new.", file=sys.stderr)
    say = FORMATS[options.format]
    if len(script.get_heads()) > 1:
        # Nothing else can be told before they are joined.
        message = "there are several: alembic -c db/alembic.ini merge -m '...' heads"
        several = Finding(Path(VERSIONS), "heads", message)
        print(*say(Report(), [several]), sep="\n")
        return 1
    new = new_revisions(script, base)
    # The one reads its classes while the other starts.
    with old_code.at(base if new else Base()) as classes, embedded.throw_away() as server:
        report = find_all(config, script, base, new, classes, server)
        for line in say(report, report.findings):
            print(_wrapped(line))
        if report.findings:
            return 1
        told = sys.stdout if options.format == "text" else sys.stderr
        verify(lambda line: print(line, file=told, flush=True), server)
    return 0
