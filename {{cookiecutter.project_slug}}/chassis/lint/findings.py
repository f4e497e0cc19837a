"""What is wrong with a revision, by what its statements were seen to do: a rule, to whom it happens, what to do."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from chassis.lint.effects import BLOCKS_READS, BLOCKS_WRITES, Effect, Step

GUIDE = "db/LINT.md"
SQUAWK = "https://squawkhq.com/docs"
EXCEPTION = re.compile(r"^\s*# lint: allow ([\w-]+) -- \S", re.MULTILINE)
# Rules of squawk for what can't be seen on a database. All else is found by what a statement does.
KEPT = {
    "syntax-error",
    "transaction-nesting",
    "ban-uncommitted-transaction",
    "ban-char-field",
    "prefer-timestamp-tz",
    "identifier-too-long",
    "ban-create-domain-with-constraint",
    "ban-alter-domain-with-add-constraint",
    "ban-drop-database",
    "ban-drop-schema",
    "ban-drop-extension",
    "ban-drop-view",
    "ban-revoke",
    "ban-alter-system-options",
    "require-concurrent-partition-detach",
}
# An exception may also name squawk's rule for the same thing.
ALSO = {
    "table-rewrite": {"changing-column-type", "adding-field-with-default", "adding-serial-primary-key-field"},
    "scan-under-lock": {
        "constraint-missing-not-valid",
        "adding-foreign-key-constraint",
        "adding-not-nullable-field",
    },
    "index-under-lock": {
        "require-concurrent-index-creation",
        "disallowed-unique-constraint",
        "require-concurrent-reindex",
    },
    "index-drop-under-lock": {"require-concurrent-index-deletion"},
    "truncate": {"ban-truncate-cascade"},
    "trigger-disabled": {"ban-disable-trigger"},
    "fails": {"ban-concurrent-index-creation-in-transaction"},
    "fails-on-rows": {"adding-required-field", "adding-not-nullable-field"},
    "column-still-read": {"ban-drop-column", "renaming-column", "changing-column-type"},
    "table-still-read": {"ban-drop-table", "renaming-table"},
    "null-unexpected": {"ban-drop-not-null"},
    "constraint-relied-on": {"ban-drop-constraint"},
    "write-breaks": {"adding-required-field", "changing-column-type"},
}
# What makes these dangerous is only how many rows a table has.
BY_SIZE = {"table-rewrite", "scan-under-lock", "index-under-lock", "rows-in-bulk", "rows-under-lock"}
MANY = 50  # of a hundred rows
LONG = " Its time grows with the rows: nothing for a thousand, minutes for ten million."


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file, at a line of it (0 for the whole file)."""

    path: Path
    rule: str
    message: str
    line: int = 0
    tables: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The file's name, with the line."""
        return f"{self.path.name}:{self.line}" if self.line else self.path.name

    @property
    def link(self) -> str:
        """Where the guide, or squawk's own, says what to do."""
        return f"{SQUAWK}/{self.rule}" if self.rule in KEPT else f"{GUIDE}#{self.rule}"

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.message}"


def is_allowed(finding: Finding, source: str) -> bool:
    """Whether the file has a comment that allows it."""
    return bool(set(EXCEPTION.findall(source)) & {finding.rule, *ALSO.get(finding.rule, ())})


def is_small(finding: Finding, patterns: Iterable[str]) -> bool:
    """Whether only the size of a table made it dangerous, and all the tables are named as small."""
    return (
        finding.rule in BY_SIZE
        and bool(finding.tables)
        and all(
            any(fnmatchcase(table, p) or fnmatchcase(f"public.{table}", p) for p in patterns)
            for table in finding.tables
        )
    )


@dataclass
class Transaction:
    """The locks that a transaction holds by now: table -> the step that took it, if it blocks."""

    blocking: dict[str, Step] = field(default_factory=dict)
    reads: dict[str, Step] = field(default_factory=dict)
    told_of_several: bool = False

    @property
    def shut(self) -> str:
        """Say which tables are locked so that somebody waits."""
        names = _listed([f"`{name}`" for name in self.blocking])
        return f"{names} {'is' if len(self.blocking) == 1 else 'are'} locked"


def find(steps: Sequence[Step]) -> Iterator[Finding]:
    """Find what is wrong with the statements of one revision."""
    transaction = Transaction()
    dropped = {effect.table for step in steps for effect in step.effects if effect.gone}
    for step in steps:
        if step.alone:
            transaction = Transaction()
        for effect in step.effects:
            if effect.mode >= BLOCKS_WRITES and not (effect.is_view and effect.mode < BLOCKS_READS):
                transaction.blocking.setdefault(effect.table, step)
            if effect.mode >= BLOCKS_READS and effect.table not in dropped:
                transaction.reads.setdefault(effect.table, step)
        yield from _of_step(step, transaction)
        if step.alone:
            transaction = Transaction()


def _of_step(step: Step, transaction: Transaction) -> Iterator[Finding]:
    def finding(rule: str, message: str, *tables: str) -> Finding:
        return Finding(step.path, rule, message, step.line, tables)

    if step.bypasses_triggers:
        yield finding(
            "trigger-disabled",
            "No trigger and no foreign key is checked in this session: what is written now may be wrong for ever.",
        )
    for effect in step.effects:
        for rule, message in _of_effect(step, effect, transaction):
            yield finding(rule, message, effect.table)
    if len(transaction.reads) > 1 and not transaction.told_of_several:
        took = {id(taken) for taken in transaction.reads.values()}
        # One statement may need two tables; what can be done in two transactions should be.
        if len(took) > 1:
            transaction.told_of_several = True
            names = _listed([f"`{table}`" for table in transaction.reads])
            yield finding(
                "several-tables-locked",
                f"One transaction shuts {names}: while it waits for one, all queries of the others wait too, and "
                "two such transactions can wait for each other. Take a revision for each.",
                *transaction.reads,
            )


def _of_effect(step: Step, effect: Effect, transaction: Transaction) -> Iterator[tuple[str, str]]:
    table, who = f"`{effect.table}`", _who(effect)
    # Where no index can serve, a statement may find any number of rows, however few it found here.
    in_bulk = effect.scanned or effect.changed * 2 >= effect.rows
    is_written = effect.inserted >= MANY or (effect.changed and in_bulk)
    if effect.truncated or (effect.rewritten and step.tag == "TRUNCATE TABLE"):
        yield "truncate", f"All rows of {table} are gone, and nothing brings them back."
        return
    if effect.rewritten and effect.is_view:
        yield (
            "table-rewrite",
            f"Every query of {table} waits until it is filled anew. REFRESH … CONCURRENTLY lets them read on.",
        )
        return
    if effect.rewritten:
        yield "table-rewrite", f"Every query of {table} waits while all its rows are written anew.{LONG}"
    elif (effect.built and effect.mode >= BLOCKS_WRITES) or effect.rebuilt:
        yield "index-under-lock", f"{who} of {table} waits while an index is built over all its rows.{LONG}"
    elif is_written and transaction.blocking:
        yield (
            "rows-under-lock",
            f"Rows of {table} are written while {transaction.shut}: everybody waits until that is done.{LONG}",
        )
    elif effect.scanned and not effect.changed and transaction.blocking:
        yield "scan-under-lock", f"{table} is read from end to end while {transaction.shut}.{LONG}"
    elif effect.changed and effect.rows and in_bulk and not step.several:
        yield (
            "rows-in-bulk",
            f"One statement changes rows all over {table}: whoever writes one of them waits until its end.{LONG}",
        )
    if effect.unlogged:
        yield "unlogged", f"After a crash {table} is empty: PostgreSQL no longer writes it to its log."
    if effect.taken and effect.mode >= BLOCKS_WRITES and not effect.gone and _only_locks(step, effect):
        yield (
            "lock-table",
            f"{who} of {table} waits until this transaction ends, for nothing that a change needs.",
        )
    if effect.disabled:
        names = _listed(effect.disabled)
        yield (
            "trigger-disabled",
            f"On {table} doesn't fire meanwhile: {names}. What is written then may be wrong.",
        )
    if effect.json:
        yield (
            "json-column",
            f"{table} gets a column of type json ({_listed(effect.json)}), which can't be compared: SELECT DISTINCT, "
            "UNION and GROUP BY over the table fail. Take jsonb.",
        )
    if effect.dropped and not effect.built and effect.mode >= BLOCKS_READS:
        yield (
            "index-drop-under-lock",
            f"Every query of {table} waits until the index is dropped, and that waits for those that run. "
            "DROP INDEX CONCURRENTLY lets all of them go on.",
        )


def _only_locks(step: Step, effect: Effect) -> bool:
    if step.tag.startswith("LOCK"):
        return True
    touched = effect.altered or effect.rewritten or effect.built or effect.changed or effect.inserted
    return step.tag.split(" ")[0] in {"DO", "SELECT", "CALL"} and not touched


def _who(effect: Effect) -> str:
    return "Every query" if effect.mode >= BLOCKS_READS else "Every write"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
