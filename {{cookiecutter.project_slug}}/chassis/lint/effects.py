"""What each statement of a revision does to tables in use, by what PostgreSQL itself tells of the session that ran it.

The locks are in pg_locks, a rewrite is another file of the table (pg_class.relfilenode), rows read and changed are in
the session's own statistics: https://www.postgresql.org/docs/current/monitoring-stats.html
"""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, Engine, event

from chassis.database import plain
from chassis.database.version_table import VersionTable

# From weak to strong: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
MODES = ("AccessShare", "RowShare", "RowExclusive", "ShareUpdateExclusive", "Share", "ShareRowExclusive",
         "Exclusive", "AccessExclusive")  # fmt: skip
BLOCKS_WRITES, BLOCKS_READS = MODES.index("Share"), MODES.index("AccessExclusive")
ENOUGH = 50  # rows that a statement finds by an index before that counts as reading the table

RELATIONS = """
    SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_relation_filenode(c.oid)::int8,
           pg_relation_size(c.oid), c.relpersistence::text,
           pg_stat_get_xact_numscans(c.oid),
           (SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(indexrelid)), 0)::int8 FROM pg_index WHERE indrelid = c.oid),
           pg_stat_get_xact_tuples_inserted(c.oid),
           pg_stat_get_xact_tuples_updated(c.oid), pg_stat_get_xact_tuples_deleted(c.oid),
           ARRAY(SELECT ROW(i.indexrelid::int8, pg_relation_filenode(i.indexrelid)::int8,
                            EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = c.oid),
                            i.indkey::text)::text FROM pg_index i WHERE i.indrelid = c.oid),
           ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled = 'D'),
           ARRAY(SELECT attname::text FROM pg_attribute
                  WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND atttypid = 'json'::regtype),
           ARRAY(SELECT attnum::int4 FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
           concat_ws(' ',
               (c.xmin::text::int8 << 32) + c.cmin::text::int8,
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) FROM pg_attribute WHERE attrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) FROM pg_attrdef WHERE adrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_constraint
                 WHERE conrelid = c.oid OR confrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_trigger
                 WHERE tgrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_index
                 WHERE indrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_policy
                 WHERE polrelid = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_rewrite
                 WHERE ev_class = c.oid),
               (SELECT max((xmin::text::int8 << 32) + cmin::text::int8) || '/' || count(*) FROM pg_inherits
                 WHERE inhrelid = c.oid OR inhparent = c.oid))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
"""
# A version table is written by each revision; what an extension brought is nobody's to migrate.
IN_USE = """
     WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT (c.relname = {name} AND n.nspname = coalesce({schema}, current_schema())) AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
LOCKS = """
    SELECT l.relation::int8, array_agg(DISTINCT l.mode)
      FROM pg_locks l
     WHERE l.pid = %s AND l.locktype = 'relation' AND l.granted
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     GROUP BY l.relation
"""
# Nobody plans with an index that is dead, as DROP INDEX CONCURRENTLY makes it before it locks it, so nobody waits for it.
ALIVE = """
    SELECT c.oid::int8
      FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
     WHERE c.oid = ANY(%s) AND coalesce(i.indislive, true)
"""


class Index(NamedTuple):
    """An index of a table: its file, whether a constraint needs it, the numbers of its columns."""

    oid: int
    file: int
    of_constraint: bool
    columns: frozenset[int]


@dataclass(frozen=True)
class Relation:
    """A table or a materialized view, as the catalogue and the session's statistics have it."""

    oid: int
    schema: str
    name: str
    kind: str
    file: int | None
    size: int
    persistence: str
    scans: int
    found_by_index: int
    inserted: int
    updated: int
    deleted: int
    indexes: Mapping[int, Index]
    disabled: frozenset[str]
    json: frozenset[str]
    columns: frozenset[int]
    # The last commands that changed anything about it, not its rows.
    changed_by: str

    @property
    def label(self) -> str:
        """The name as people write it."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """The name as SQL has it."""
        return f"{plain.quote(self.schema)}.{plain.quote(self.name)}"


@dataclass(frozen=True)
class Effect:
    """What one statement did to one table in use.

    Attributes:
        table: as it was called before the revision.
        mode: the strongest lock on it that the transaction holds now, an index into `MODES`; -1 for none.
        taken: whether this statement took it.
        rewritten, truncated, scanned: whether the whole table was written anew, emptied, or read from end to end.
        changed, inserted: how many rows; `rows` is how many there were before.
        built, rebuilt, dropped: how many indexes were built in that time, how many of those in place of what queries
            use, and how many went that nothing else took along.
        disabled, json: triggers that don't fire any more, columns of type json that weren't there.
        gone: whether the table was dropped; altered: whether anything about it changed but its rows.
    """

    oid: int
    table: str
    is_view: bool = False
    mode: int = -1
    taken: bool = False
    rewritten: bool = False
    truncated: bool = False
    unlogged: bool = False
    scanned: bool = False
    changed: int = 0
    inserted: int = 0
    rows: int = 0
    built: int = 0
    rebuilt: int = 0
    dropped: int = 0
    disabled: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    gone: bool = False
    altered: bool = False


@dataclass(frozen=True)
class Step:
    """One statement of a revision: where it stands, how it begins, what the server called it, what it did.

    `alone` is a statement that is a transaction of its own, `several` one that is more than one, such as a block that
    commits.
    """

    path: Path
    line: int
    statement: str
    tag: str
    alone: bool
    effects: tuple[Effect, ...]
    bypasses_triggers: bool = False
    several: bool = False


@dataclass
class Look:
    """The state of the tables in use and of the session's locks at one moment."""

    relations: dict[int, Relation]
    locks: dict[int, int] = field(default_factory=dict)
    bypasses_triggers: bool = False


def tables_in_use(connection: Connection) -> dict[int, Relation]:
    """Return all tables and materialized views that are there, by their oid."""
    table = VersionTable.read()
    of_versions = {
        "name": plain.literal(table.name),
        "schema": plain.literal(table.schema) if table.schema else "NULL",
    }
    rows = plain.run(connection, RELATIONS + IN_USE.format(**of_versions))
    return {relation.oid: relation for relation in map(_relation, rows)}


def _relation(row: Any) -> Relation:
    names = [field.name for field in fields(Relation)]
    values: dict[str, Any] = dict(zip(names, row, strict=True))
    indexes = {index.oid: index for index in map(_index, values.pop("indexes"))}
    sets: dict[str, Any] = {name: frozenset(values.pop(name)) for name in ("disabled", "json", "columns")}
    return Relation(**values, **sets, indexes=indexes)


def _index(text: str) -> Index:
    oid, file, of_constraint, columns = text.strip("()").split(",")
    numbers = frozenset(int(number) for number in columns.strip('"').split())
    return Index(int(oid), int(file or 0), of_constraint == "t", numbers)


class Observer:
    """Notes what the statements of one revision do, on the connection that runs it."""

    def __init__(self, connection: Connection, path: Path, in_use: Mapping[int, Relation]) -> None:
        """Take the revision's file, and the tables that were there and in use before it."""
        self.steps: list[Step] = []
        self._connection = connection
        self._driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        self._path = path
        self._before: Look | None = None
        self._in_use = in_use
        # What was locked once is looked at before each statement, the others are as they were at the start.
        self._touched: set[int] = set()
        self._gone: set[int] = set()
        self._indexes = {index: oid for oid, relation in in_use.items() for index in relation.indexes}
        self._tried: Look | None = None
        self._sampler: Sampler | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for as long as the block lasts."""
        hooks = (("before_cursor_execute", self._begin), ("after_cursor_execute", self._end))
        for name, hook in hooks:
            event.listen(self._connection, name, hook)
        try:
            yield
        finally:
            for name, hook in hooks:
                event.remove(self._connection, name, hook)
            if self._sampler is not None:  # its statement failed
                self._sampler.stop()
                self._sampler = None

    def _line(self) -> int:
        """The line of the revision that runs just now, 0 where it is Alembic's own doing."""
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == str(self._path):
                return frame.f_lineno
            frame = frame.f_back  # type: ignore[assignment]
        return 0

    def _begin(
        self, _: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._before = self._tried = None
        if not self._line():
            return
        self._before = self._look()
        if self._driver.autocommit:
            self._tried = self._try(cursor, statement, parameters, context)
            if self._tried is None:
                # What it locked is gone when it ends, so nothing tells where to look.
                self._touched |= set(self._in_use)
                self._before = self._look()
                self._sampler = Sampler(self._connection, self._driver.info.backend_pid)

    def _try(self, cursor: Any, statement: str, parameters: Any, context: Any) -> Look | None:
        """What a statement that is a transaction of its own does, seen before it ends; it is taken back."""
        self._driver.execute("BEGIN")
        try:
            context.dialect.do_execute(cursor, statement, parameters, context)
            return self._look()
        except psycopg.Error:
            # Where it fails as such, it fails again in a moment.
            return None
        finally:
            self._driver.execute("ROLLBACK")

    def _end(
        self, _: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if self._before is None:
            return
        before, after = self._before, self._tried or self._look()
        several = self._sampler is not None
        if self._sampler is not None:
            after.locks = self._strongest(self._sampler.stop())
        self._before = self._sampler = None
        alone = self._driver.autocommit
        effects = tuple(self._effects(before, after))
        tag = cursor.statusmessage or ""
        self.steps.append(
            Step(
                self._path,
                self._line(),
                " ".join(statement.split()),
                tag,
                alone,
                effects,
                after.bypasses_triggers,
                several,
            )
        )

    def _look(self) -> Look:
        """Look at the tables that this session has locked; nothing happens to a table without a lock."""
        locks = self._strongest(self._driver.execute(LOCKS, [self._driver.info.backend_pid]))
        self._touched |= locks.keys()
        rows = self._driver.execute(f"{RELATIONS} WHERE c.oid = ANY(%s)", [list(self._touched)])
        role = self._driver.execute(
            "SELECT current_setting('session_replication_role') <> 'origin'"
        ).fetchone()
        return Look({row[0]: _relation(row) for row in rows}, locks, bool(role and role[0]))

    def _strongest(self, found: Iterable[tuple[int, Sequence[str]]]) -> dict[int, int]:
        """The strongest lock on each table in use, by what is locked and how."""
        locks: dict[int, int] = {}
        for oid, modes in found:
            strongest = max(MODES.index(mode.removesuffix("Lock")) for mode in modes)
            # Who plans a query locks all indexes of its tables.
            table = self._indexes.get(oid, oid) if strongest == BLOCKS_READS else oid
            if table in self._in_use:
                locks[table] = max(locks.get(table, -1), strongest)
        return locks

    def _effects(self, before: Look, after: Look) -> Iterator[Effect]:
        for oid in sorted(self._touched, key=lambda oid: self._in_use[oid].label):
            start, mode = self._in_use[oid], after.locks.get(oid, -1)
            had, has = before.relations.get(oid, start), after.relations.get(oid)
            if oid in self._gone or (mode < 0 and has == had):
                continue
            taken = mode > before.locks.get(oid, -1)
            if has is None:
                self._gone.add(oid)
                yield Effect(oid, start.label, mode=mode, taken=taken, gone=True)
                continue
            effect = self._compare(start, had, has, mode, taken)
            if taken or effect != Effect(oid, start.label, effect.is_view, mode):
                yield effect

    def _compare(self, start: Relation, had: Relation, has: Relation, mode: int, taken: bool) -> Effect:
        by_index = _since(had.found_by_index, has.found_by_index)
        files = {index.file for index in had.indexes.values()}
        files_now = {index.file for index in has.indexes.values()}
        changed = _since(had.updated, has.updated) + _since(had.deleted, has.deleted)
        inserted = _since(had.inserted, has.inserted)
        rows = self._count(has) if by_index or changed else 0
        other_file = had.file != has.file
        emptied = other_file and has.size == 0 and had.size > 0
        columns_lost = had.columns - has.columns
        return Effect(
            has.oid,
            start.label,
            has.kind == "m",
            mode,
            taken,
            rewritten=other_file and not emptied,
            truncated=emptied,
            unlogged=had.persistence == "p" and has.persistence == "u",
            scanned=_since(had.scans, has.scans) > 0 or by_index >= max(rows, ENOUGH),
            changed=changed,
            inserted=inserted,
            rows=rows + _since(had.deleted, has.deleted) if changed else 0,
            # A new index may take over the file of one that it replaces.
            built=len(files_now - files - {0}),
            rebuilt=sum(
                index.oid in had.indexes and had.indexes[index.oid].file != index.file
                for index in has.indexes.values()
            ),
            dropped=sum(
                index.file not in files_now
                and index.oid not in has.indexes
                and not index.of_constraint
                and not index.columns & columns_lost
                for index in had.indexes.values()
            ),
            disabled=tuple(sorted(has.disabled - had.disabled)),
            json=tuple(sorted(has.json - had.json)),
            altered=has.changed_by != had.changed_by or has.indexes.keys() != had.indexes.keys(),
        )

    def _count(self, relation: Relation) -> int:
        found = self._driver.execute(f"SELECT count(*) FROM {relation.quoted}").fetchone()
        return found[0] if found else 0


class Sampler:
    """Looks from another connection at the locks of a statement that can't be part of a transaction."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self._found: dict[int, set[str]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(connection.engine, pid), daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[int, list[str]]]:
        """End, and return each relation that was locked with the modes that were seen."""
        self._over.set()
        self._thread.join()
        return [(oid, list(modes)) for oid, modes in self._found.items()]

    def _run(self, engine: Engine, pid: int) -> None:
        with engine.connect() as beside:
            driver: psycopg.Connection[Any] = beside.connection.driver_connection  # type: ignore[assignment]
            while not self._over.is_set():
                locked = dict(driver.execute(LOCKS, [pid]).fetchall())
                # Afterwards, since what is alive by then was so while it was locked.
                for (oid,) in driver.execute(ALIVE, [list(locked)]):
                    self._found.setdefault(oid, set()).update(locked[oid])
                driver.rollback()


def _since(before: int, after: int) -> int:
    """How much a counter grew; it begins again when the server has taken its content over."""
    return after - before if after >= before else after
