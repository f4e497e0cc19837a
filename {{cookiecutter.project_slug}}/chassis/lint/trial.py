"""New revisions at work on a database like that of production: up with rows in every table, back, and up again.

While they run each statement is watched; after each of them the code of the last release works on the tables.
"""

import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, create_engine, text
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.pool import NullPool

from chassis.database import plain
from chassis.lint import old_code
from chassis.lint.effects import MODES, Observer, Relation, Step, tables_in_use
from chassis.lint.errors import LintError
from chassis.lint.exercise import Failures
from chassis.lint.findings import Finding, find
from chassis.lint.rows import dangling, fill

OWN_ROWS = "db/sample_rows.sql"
UNVALIDATED = text("SELECT conname::text FROM pg_constraint WHERE NOT convalidated AND contype IN ('c', 'f')")
VIOLATION = text("""
    SELECT k.contype::text, k.conrelid::regclass::text, pg_get_expr(k.conbin, k.conrelid), k.confrelid::regclass::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o)
      FROM pg_constraint k WHERE k.conname = :name AND NOT k.convalidated
""")
ROLES = text("SELECT quote_ident(rolname) FROM pg_roles")
COLUMNS = text("""
    SELECT attname::text FROM pg_attribute
     WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped ORDER BY attname
""")
# Table, column ("" for the number of rows) -> a digest of what is there.
Contents = dict[tuple[str, str], str]


@dataclass
class Report:
    """What was seen: steps of each revision, findings, and what else should be known."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class EndedError(Exception):
    """The trial can't go on; why is among the findings."""


class RevisionError(Exception):
    """A revision failed; `code` is what PostgreSQL calls it, `constraint` the one that was violated."""

    def __init__(self, revision: Script, error: BaseException) -> None:
        self._path = Path(revision.path)
        cause = getattr(error, "orig", None)
        diagnosis = getattr(cause, "diag", None)
        self.code: str = getattr(cause, "sqlstate", None) or ""
        self.constraint: str | None = getattr(diagnosis, "constraint_name", None)
        frames = traceback.extract_tb(error.__traceback__)
        self._line = next((f.lineno or 0 for f in reversed(frames) if f.filename == revision.path), 0)
        said = str(cause).strip().splitlines() if cause else [f"{type(error).__name__}: {error}"]
        super().__init__(said[0] if said else type(error).__name__)

    def finding(self, rule: str, what: str, remedy: str = "") -> Finding:
        """Return it as a finding: `what` fails, in PostgreSQL's words, and what to do."""
        return Finding(self._path, rule, f"{what}: {self}{remedy}", self._line)


class Trial:
    """Tries the revisions that are new, on databases of a server that nobody needs."""

    def __init__(
        self,
        config: Config,
        server: URL,
        new: Sequence[Script],
        *,
        classes: old_code.OldCode | None = None,
        base_known: bool = True,
        own_rows: str = "",
    ) -> None:
        """Take what is tried.

        Args:
            config: names the revisions.
            server: any database of the server, as a superuser.
            new: the revisions that are tried, in order; all others count as released.
            classes: the code of the last release.
            base_known: False where nothing is known to be released: then the tables before each revision are in
                use, and the code knows them as they are.
            own_rows: SQL of the team's, for tables that can't be filled otherwise.
        """
        self._config = config
        self._script = ScriptDirectory.from_config(config)
        self._server = server
        self._new = list(new)
        self._classes = classes
        self._base_known = base_known
        self._own_rows = own_rows
        self._in_use: set[int] = set()
        self._failed_before: Failures | None = None  # not asked yet
        # What must be done to the rows before a revision can run: constraints whose rows have to go, or None for all.
        self._remedies: dict[int, list[str | None]] = {}
        self._contents_before: Contents = {}
        self.report = Report()

    def run(self) -> Report:
        """Try them all. One that can't be run at all ends the trial, which is a finding."""
        with suppress(EndedError), ExitStack() as stack:
            connection = self._fresh(stack, 0)
            for number in range(len(self._new)):
                connection = self._try(stack, connection, number)
            self._back_and_up(connection)
        return self.report

    def _fresh(self, stack: ExitStack, number: int) -> Connection:
        """Make a database on which all revisions before this one have run, in place of the one before."""
        stack.close()
        connection = stack.enter_context(database(self._server))
        new = {revision.revision for revision in self._new}
        released = [r for r in reversed(list(self._script.walk_revisions())) if r.revision not in new]
        try:
            self._migrate(connection, *released)
        except RevisionError as error:
            raise LintError(f"A revision that is released fails on an empty database: {error}") from error
        if self._base_known:
            self._use(connection)
        for before in range(number):
            self._ready(connection, before)
            self._migrate(connection, self._new[before])
            self._refill(connection, before)
        return connection

    def _use(self, connection: Connection) -> None:
        """Take the tables that are there for those in use, fill them, and see what the old code makes of them."""
        self._in_use = set(tables_in_use(connection))
        connection.rollback()
        try:
            # A team writes its rows for the tables at the base.
            filled = fill(connection, self._in_use, self._own_rows if self._base_known else "")
        except DBAPIError as error:
            said = str(error.orig).strip().splitlines()[0]
            raise LintError(f"{OWN_ROWS} fails on the tables as they are at the base: {said}") from error
        for table, reason in filled.reasons.items():
            note = f"{table} could not be filled: {reason}. Give it rows in {OWN_ROWS}."
            if note not in self.report.notes:
                self.report.notes.append(note)
        if not self._base_known:
            self._classes = _as_they_are(connection)
            self._failed_before = self._classes.work(connection)
        elif self._failed_before is None:
            self._contents_before = contents(connection, self._in_use)
            try:
                self._failed_before = self._classes.work(connection) if self._classes else {}
            except old_code.OldCodeError as error:
                self.report.notes.append(f"The code of the last release can't be asked: {error}.")
                self._classes = None

    def _ready(self, connection: Connection, number: int) -> None:
        """Make the rows such as the revision needs them."""
        for constraint in self._remedies.get(number, ()):
            _remove_rows(connection, self._in_use, constraint)

    def _refill(self, connection: Connection, number: int) -> None:
        if None in self._remedies.get(number, ()):
            connection.rollback()
            fill(connection, self._in_use)

    def _try(self, stack: ExitStack, connection: Connection, number: int) -> Connection:
        """Run a revision, watched, and return the connection to the database on which it has run."""
        revision = self._new[number]
        steps: list[Step] = []
        found: list[Finding] = []
        while True:
            if not self._base_known:
                self._use(connection)
            self._ready(connection, number)
            unvalidated = set(connection.scalars(UNVALIDATED))
            connection.rollback()
            observer = _observer(connection, revision, self._in_use)
            error = self._watch(connection, revision, observer)
            # What was seen with rows stays: another try follows without.
            steps += observer.steps[len(steps) :]
            if error is None:
                break
            # Whoever made a constraint NOT VALID will have seen to the rows before it is validated.
            promised = error.constraint if error.constraint in unvalidated else None
            remedies = self._remedies.setdefault(number, [])
            if promised in remedies:
                self.report.findings += [*find(steps), error.finding("fails", "It can't be run")]
                raise EndedError
            if promised is None:
                remedy = ". See to such rows first, in a revision of their own."
                found.append(error.finding("fails-on-rows", "With rows in the tables it fails", remedy))
            remedies.append(promised)
            connection = self._fresh(stack, number)
        self._refill(connection, number)
        self.report.steps[revision.revision] = steps
        self.report.findings += [*find(steps), *found]
        # After the last one all tables are looked at, for what reaches further than its locks.
        is_last = number == len(self._new) - 1 and self._base_known
        touched = None if is_last else {effect.table for step in steps for effect in step.effects}
        self._find_broken(connection, number, touched, steps)
        return connection

    def _watch(self, connection: Connection, revision: Script, observer: Observer) -> RevisionError | None:
        try:
            with observer.watching():
                self._migrate(connection, revision)
        except RevisionError as error:
            return error
        return None

    def _find_broken(
        self, connection: Connection, number: int, touched: set[str] | None, steps: Sequence[Step]
    ) -> None:
        """Find what the code of the last release can't do any more on these tables, or on all."""
        if self._classes is None or self._failed_before is None:
            return
        only = None if touched is None else sorted(touched & set(self._classes.tables))
        if only == []:
            return
        path = Path(self._new[number].path)
        for key, said in self._classes.work(connection, only).items():
            # What never worked says nothing, and what failed after an earlier revision is known.
            if key not in self._failed_before:
                self._failed_before[key] = said
                rule, message = old_code.explain(key, said)
                self.report.findings.append(Finding(path, rule, message, _line_of(steps, key), (key[0],)))

    def _back_and_up(self, connection: Connection) -> None:
        """Run the downgrades with the rows in place, compare the rows, and upgrade again."""
        for revision in reversed(self._new):
            try:
                self._migrate(connection, revision, up=False)
            except RevisionError as error:
                if error.code:
                    what = "With rows in the tables the way back fails"
                    self.report.findings.append(error.finding("downgrade-fails", what))
                else:
                    self.report.notes.append(f"{Path(revision.path).name} has no way back: {error}")
                return
        remedies = [remedy for remedies in self._remedies.values() for remedy in remedies]
        if not remedies and self._base_known:
            self._compare(connection)
        if None in remedies:
            return
        for number, revision in enumerate(self._new):
            try:
                self._ready(connection, number)
                self._migrate(connection, revision)
            except RevisionError as error:
                what = "After a downgrade the upgrade fails"
                self.report.findings.append(error.finding("upgrade-again-fails", what))
                return

    def _compare(self, connection: Connection) -> None:
        """Say what the way back loses, and find what it does to tables that the revisions don't touch."""
        now = contents(connection, self._in_use)
        lost = [place for place, digest in self._contents_before.items() if now.get(place) != digest]
        touched = {
            effect.table
            for steps in self.report.steps.values()
            for step in steps
            for effect in step.effects
            if effect.mode >= MODES.index("RowExclusive")
        }
        path = Path(self._new[-1].path)
        for table in sorted({table for table, _ in lost}):
            columns = sorted(column for lost_of, column in lost if lost_of == table and column)
            what = (
                "all its rows"
                if (table, "") not in now
                else "rows"
                if (table, "") in lost
                else ", ".join(columns)
            )
            if table in touched:
                self.report.notes.append(f"The way back doesn't bring back what was in {table}: {what}.")
            else:
                message = f"Up and back changes `{table}`, which the upgrade doesn't touch: {what}."
                self.report.findings.append(Finding(path, "rows-lost", message, 0, (table,)))

    def _migrate(self, connection: Connection, *revisions: Script, up: bool = True) -> None:
        """Run revisions as `upgrade` and `downgrade` do, by the workspace's own env.py."""
        make = MigrationStep.upgrade_from_script if up else MigrationStep.downgrade_from_script
        steps = [make(self._script.revision_map, revision) for revision in revisions]
        if not steps:
            return
        self._config.attributes["connection"] = connection
        try:
            with EnvironmentContext(self._config, self._script, fn=lambda *_: steps):
                self._script.run_env()
        except Exception as error:
            # Whatever a revision raises is a finding, not a fault of ours.
            raise RevisionError(revisions[-1], error) from error
        finally:
            # Alembic takes a transaction that is open, be it one that only read, for the caller's own.
            connection.rollback()
            del self._config.attributes["connection"]


@contextmanager
def database(server: URL) -> Iterator[Connection]:
    """Make a database on the server for as long as the block lasts, and connect to it."""
    name = f"lint_{uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as keeper:
        roles = set(keeper.scalars(ROLES))
        keeper.exec_driver_sql(f"CREATE DATABASE {name}")
    engine = create_engine(
        server.set(database=name), poolclass=NullPool, connect_args={"application_name": "lint"}
    )
    try:
        with engine.connect() as connection:
            # An index that could serve must not be passed over because a table is small here.
            connection.execute(text("SET enable_seqscan = off"))
            connection.execute(text("SET jit = off"))
            connection.commit()
            yield connection
    finally:
        with admin.connect() as keeper:
            keeper.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            # Those that a revision made belong to the whole server.
            for role in set(keeper.scalars(ROLES)) - roles:
                plain.run(keeper, f"DROP ROLE IF EXISTS {role}")


def _as_they_are(connection: Connection) -> old_code.OfClasses:
    """Return code that knows the tables as they are now."""
    metadata = MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # types of extensions
        metadata.reflect(connection)
    connection.rollback()
    return old_code.OfClasses(metadata)


def _observer(connection: Connection, revision: Script, in_use: set[int]) -> Observer:
    # Counters begin anew for the next transaction.
    connection.execute(text("SELECT pg_stat_force_next_flush()"))
    connection.commit()
    relations = {oid: relation for oid, relation in tables_in_use(connection).items() if oid in in_use}
    connection.rollback()
    return Observer(connection, Path(revision.path), relations)


def _line_of(steps: Sequence[Step], key: tuple[str, str, str]) -> int:
    """The line of the statement that broke something for the old code, as well as it can be told; 0 for none."""
    table, _, column = key
    of_table = [step for step in steps if any(effect.table == table for effect in step.effects)]
    named = [step for step in of_table if column and re.search(rf"\b{re.escape(column)}\b", step.statement)]
    altered = [
        step for step in of_table if any(e.table == table and (e.altered or e.gone) for e in step.effects)
    ]
    return next((step.line for step in reversed(named or altered or of_table)), 0)


def _remove_rows(connection: Connection, in_use: set[int], constraint: str | None) -> None:
    """Remove the rows that a constraint forbids, which isn't validated yet; all rows for None."""
    with connection.begin():
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        if constraint is None:
            for relation in _tables(connection, in_use):
                plain.run(connection, f"DELETE FROM {relation.quoted}")
            return
        broken = connection.execute(VIOLATION, {"name": constraint}).all()
        for kind, table, condition, target, columns, keys in broken:
            bad = f"NOT ({condition})" if kind == "c" else dangling(columns, keys, target)
            plain.run(connection, f"DELETE FROM {table} t WHERE {bad}")


def _tables(connection: Connection, in_use: set[int]) -> list[Relation]:
    """Return what of it has rows of its own, and is still there."""
    there = tables_in_use(connection).values()
    return [relation for relation in there if relation.oid in in_use and relation.kind == "r"]


def contents(connection: Connection, in_use: set[int]) -> Contents:
    """Return a digest of each column of each table, in which the order of rows doesn't count."""
    found: Contents = {}
    for relation in _tables(connection, in_use):
        columns = list(connection.scalars(COLUMNS, {"oid": relation.oid}))
        digests = "".join(f", sum(hashtextextended({plain.quote(c)}::text, 0))::text" for c in columns)
        row = plain.run(connection, f"SELECT count(*)::text{digests} FROM {relation.quoted}").one()
        found |= {(relation.label, c): str(digest) for c, digest in zip(["", *columns], row, strict=True)}
    connection.rollback()
    return found
