"""How the database stands to the code: at head, behind it, or at a revision the code doesn't know."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, Table, TextClause, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.schema import SetTableComment

from chassis.database.plain import quote
from chassis.database.version_table import VersionTable

log = logging.getLogger("alembic.state")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNDEFINED_TABLE = "42P01"

# Whether any of these tables is there.
ANY_OF = text("SELECT bool_or(to_regclass(name) IS NOT NULL) FROM unnest(CAST(:names AS text[])) name")
LINEAGE_MARK = "revisions: "
LINEAGE_LENGTH = 500

WAYS_OUT = (
    "Deploy the image that has the revision, or restore its file. Or, if this code can work with the "
    "newer tables, let it start without migrating: MIGRATE_WHEN_AHEAD=start."
)


@dataclass(frozen=True, slots=True)
class State:
    """The database's revisions beside the code's heads."""

    current: frozenset[str]
    heads: frozenset[str]
    unknown: tuple[str, ...]

    @property
    def at_head(self) -> bool:
        """Whether there is nothing to upgrade. Several heads are never that: Alembic must complain."""
        return self.current == self.heads and len(self.heads) == 1


def current_of(table: VersionTable) -> TextClause:
    """Return the query for the revisions that the database is at."""
    return text(f"SELECT version_num FROM {table}")  # noqa: S608 -- its form is checked where it is read


def lineage_of(table: VersionTable) -> TextClause:
    """Return the query for what `record_lineage` has left."""
    return text(f"SELECT obj_description(to_regclass('{table}'), 'pg_class')")


def compare(current: Iterable[str], script: ScriptDirectory) -> State:
    """Compare the database's `current` revisions with the files of `script`."""
    found = frozenset(current)
    try:
        heads = frozenset(script.get_heads())
    except KeyError as error:
        raise CommandError(f"A revision follows {error}, which has no file: get that file back.") from None
    return State(found, heads, tuple(sorted(r for r in found if not _knows(script, r))))


def read(connection: Connection, script: ScriptDirectory, table: VersionTable) -> State:
    """Compare with one short query, which takes no lock that anything waits for."""
    try:
        current = connection.scalars(current_of(table)).all()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", "") != UNDEFINED_TABLE:
            raise CommandError(
                f"The revision can't be read. Migrate as the role that owns {table}: see "
                f"MIGRATE_DB_USER. The database says: {error.orig}"
            ) from None
        current = []  # nothing has run yet
    connection.rollback()
    return compare(current, script)


def tables_of(script: ScriptDirectory) -> list[str]:
    """Name the tables that the code's revisions make, as PostgreSQL's `to_regclass` takes them."""
    # Not at the top: it is asked rarely, and the service would start later for it.
    from chassis.migrations.ownership import made_by

    found = (
        f"{quote(schema)}.{quote(name)}" if schema else quote(name) for schema, name in made_by(script).tables
    )
    return sorted(found)


def explain_unknown(
    state: State,
    script: ScriptDirectory,
    table: VersionTable,
    *,
    lineage: str | None,
    has_tables: bool | None,
) -> str:
    """Say what an unknown revision means, as well as it can be known.

    Args:
        state: how the database stands to the code.
        script: the code's revisions.
        table: where the database keeps its revision.
        lineage: what the last upgrade left in the database (see `record_lineage`), or None.
        has_tables: whether any table is there that the code's revisions make.
    """
    unknown, ours = ", ".join(state.unknown), ", ".join(sorted(state.heads)) or "none"
    found = f"The database is at revision {unknown}, which this code doesn't have; its head is {ours}."
    path = lineage.removeprefix(LINEAGE_MARK).split() if lineage and lineage.startswith(LINEAGE_MARK) else []
    if not has_tables and not any(_knows(script, revision) for revision in path):
        # Newer code would have left tables of ours, and a path that begins as ours does.
        return (
            f"{found} None of this code's tables is there: {table} belongs to another project, which migrates this "
            'database too. Give this service a version table of its own: "Beside another project" in db/EXISTING_DATABASES.md.'
        )
    if not path or path[-1] not in state.current:
        meaning = (
            "Either newer code has migrated it and this is an older image, or the revision's file was "
            "deleted or lives on another branch; the database holds no record that tells which."
        )
    elif newer := [path[path.index(head) + 1 :] for head in state.heads if head in path]:
        meaning = f"Newer code has migrated it: it is ahead of this older image by {len(newer[0])} revision(s), {', '.join(newer[0])}."
    else:
        meaning = (
            "It never had this code's head: the revision comes from another branch, or files were "
            "deleted or renamed. Older or newer is not the question, so starting is a risk."
        )
    return f"{found} {meaning}"


def explain(connection: Connection, state: State, script: ScriptDirectory, table: VersionTable) -> str:
    """Say what an unknown revision means, after a look at the database."""
    lineage = connection.scalar(lineage_of(table))
    has_tables = connection.scalar(ANY_OF, {"names": tables_of(script)})
    connection.rollback()
    return explain_unknown(state, script, table, lineage=lineage, has_tables=has_tables)


def record_lineage(connection: Connection, script: ScriptDirectory, table: VersionTable) -> None:
    """Leave the path to the revision just reached as the version table's comment, for older images."""
    current = read(connection, script, table).current
    if len(current) != 1:
        return
    (head,) = current
    path = [revision.revision for revision in script.iterate_revisions(head, "base")][:LINEAGE_LENGTH]
    comment = LINEAGE_MARK + " ".join(reversed(path))
    try:
        connection.execute(
            SetTableComment(Table(table.name, MetaData(), schema=table.schema, comment=comment))
        )
        connection.commit()
    except DBAPIError as error:  # only a help for messages: what was migrated is migrated
        connection.rollback()
        log.warning("The path of revisions isn't recorded for older images: %s", error.orig)


def _knows(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False
