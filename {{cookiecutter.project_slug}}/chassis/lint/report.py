"""What was seen, for people at a terminal, for reviewers, and for programs."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chassis.lint.effects import BLOCKS_READS, BLOCKS_WRITES, MODES, Effect, Step
from chassis.lint.findings import Finding
from chassis.lint.released import VERSIONS
from chassis.lint.trial import Report

WIDTH = 72
QUOTE = "'"
MARKUP = re.compile(r"[\\*\[\]<>|~#&]|(?<!\w)_|_(?!\w)")
WHAT_NEXT = "Mend it, or allow it in the file: # lint: allow RULE -- reason. See db/LINT.md."


def describe(effect: Effect) -> str:
    """Say in a few words what a statement did to a table."""
    said = [f"{effect.table}:"]
    if effect.gone:
        said.append("dropped")
    elif effect.taken and effect.mode >= BLOCKS_READS:
        said.append("stops reads and writes")
    elif effect.taken and effect.mode >= BLOCKS_WRITES:
        said.append("stops writes")
    seen = [
        (effect.truncated, "empties it"),
        (effect.rewritten, "writes it anew"),
        (bool(effect.built), "builds an index"),
        (bool(effect.dropped), "drops an index"),
        (effect.scanned and not effect.rewritten and not effect.built, "reads all of it"),
        (bool(effect.changed), f"changes {effect.changed} of {effect.rows} rows"),
        (bool(effect.inserted), f"adds {effect.inserted} rows"),
        (bool(effect.disabled), "a trigger stops firing"),
    ]
    said += [words for is_so, words in seen if is_so]
    if len(said) == 1 and effect.altered:
        said.append("changes it" if effect.mode < BLOCKS_WRITES else "changes it, which is locked already")
    return f"{said[0]} {', '.join(said[1:]) or 'stops nobody'}"


def _effects(step: Step) -> str:
    return "; ".join(map(describe, step.effects)) or "nothing in use"


def _short(statement: str, width: int = WIDTH) -> str:
    return statement if len(statement) <= width else f"{statement[: width - 1]}…"


def text(report: Report, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines for a terminal."""
    for steps in report.steps.values():
        if steps:
            yield ""
            yield steps[0].path.name
        for step in steps:
            yield f"{step.line:6}  {_short(step.statement)}"
            yield from (f"        → {describe(effect)}" for effect in step.effects)
    for note in report.notes:
        yield ""
        yield f"Note: {note}"
    if findings:
        yield ""
    for finding in findings:
        yield f"{finding}"
        yield f"        {finding.link}"
    if findings:
        yield ""
        yield WHAT_NEXT


def markdown(report: Report, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of a comment for the reviewers of a pull request."""
    yield "### What the new revisions do"
    if not report.steps and not findings:
        yield "\nThere is no new revision."
        return
    if findings:
        yield f"\n**{len(findings)} {'finding' if len(findings) == 1 else 'findings'}**\n"
        yield from (
            f"- `{f.place}` **{f.rule}**: {_plain(f.message)} ([what to do]({f.link}))" for f in findings
        )
    else:
        yield "\nNothing that would stop traffic, break the last release's code or fail on rows was seen."
    for steps in report.steps.values():
        if steps:
            yield f"\n`{steps[0].path.name}`\n\n| Line | Statement | Seen on PostgreSQL |\n| ---: | --- | --- |"
            yield from (
                f"| {s.line} | `{_in_code(_short(s.statement))}` | {_plain(_effects(s).replace('`', QUOTE))} |"
                for s in steps
            )
    if report.notes:
        yield ""
        yield from (f"- {_plain(note)}" for note in report.notes)


def _plain(words: str) -> str:
    """Escape what Markdown would take for its own, but not in names that stand in backticks."""
    parts = " ".join(words.split()).split("`")
    escaped = [MARKUP.sub(r"\\\g<0>", part) for part in parts]
    if len(parts) % 2 == 0:
        return "\\`".join(escaped)
    return "`".join(part if n % 2 else escaped[n] for n, part in enumerate(parts))


def _in_code(words: str) -> str:
    return words.replace("`", QUOTE).replace("|", "\\|")


def github(report: Report, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield annotations: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands."""
    for finding in findings:
        file = _file(finding.path)
        message = f"{finding.message} See {finding.link}."
        yield f"::error file={_property(file)},line={finding.line or 1},title={_property(finding.rule)}::{_data(message)}"
    yield from (f"::notice::{_data(note)}" for note in report.notes)


def _file(path: Path) -> str:
    return VERSIONS if path == Path(VERSIONS) else f"{VERSIONS}/{path.name}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def as_json(report: Report, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield one JSON document: revisions with their steps, findings, notes."""
    document = {
        "revisions": [
            {"revision": revision, "steps": [_step(step) for step in steps]}
            for revision, steps in report.steps.items()
        ],
        "findings": [
            {
                "file": _file(f.path),
                "line": f.line,
                "rule": f.rule,
                "message": f.message,
                "guide": f.link,
            }
            for f in findings
        ],
        "notes": report.notes,
    }
    yield json.dumps(document, indent=2, ensure_ascii=False)


def _step(step: Step) -> dict[str, Any]:
    effects = [
        asdict(effect) | {"lock": MODES[effect.mode] if effect.mode >= 0 else None} for effect in step.effects
    ]
    for effect in effects:
        del effect["oid"], effect["mode"]
    return {
        "file": _file(step.path),
        "line": step.line,
        "statement": step.statement,
        "transaction_of_its_own": step.alone,
        "effects": effects,
    }


FORMATS: Mapping[str, Callable[[Report, Sequence[Finding]], Iterator[str]]] = {
    "text": text,
    "json": as_json,
    "markdown": markdown,
    "github": github,
}
