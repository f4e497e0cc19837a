"""Prove that the migrations work, on a throw-away PostgreSQL: ``python -m chassis verify``.

It never looks at the database that the settings name. The hook of the template, the workspace's CI
and people run this same command.
"""

import io
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from time import perf_counter

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine, text

from chassis.database import embedded
from chassis.migrations import version_table
from chassis.settings import ALEMBIC_INI, WORKSPACE, ChassisError

# What a downgrade to base must have taken away: all that isn't PostgreSQL's, an extension's or
# Alembic's own. Row types and array types go with their table or enum, indexes with their table.
LEFTOVERS = text("""
    SELECT c.relkind::text, n.nspname, c.relname
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND NOT (c.relname = :name AND n.nspname = coalesce(:schema, current_schema()))
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'type', n.nspname, t.typname
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype IN ('e', 'd', 'r')
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'function', n.nspname, p.proname
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype IN ('e', 'i'))
    UNION ALL
    SELECT 'schema', n.nspname, ''
      FROM pg_namespace n
     WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public', coalesce(:schema, ''))
""")
KINDS = {"r": "table", "p": "table", "v": "view", "m": "view", "S": "sequence", "f": "table", "c": "type"}


class VerificationError(ChassisError):
    """A step found what must not be; the message says what, and what to do."""


def one_head(config: Config, connection: Connection) -> None:
    """Check that the revisions form one line that ends in one head, where there are any."""
    heads = ScriptDirectory.from_config(config).get_heads()
    if len(heads) > 1:
        raise VerificationError(
            f"One head is needed, found: {', '.join(heads)}. Join them with: alembic -c db/alembic.ini merge heads"
        )


def upgrade(config: Config, connection: Connection) -> None:
    """Run ``upgrade head``."""
    command.upgrade(config, "head")


def no_difference(config: Config, connection: Connection) -> None:
    """Check that the revisions made just what db/tables declares, as PostgreSQL prints both."""
    config.attributes["differences"] = "the revisions make"
    try:
        command.check(config)
    except CommandError as error:
        raise VerificationError(
            f"{error}\nTables and revisions differ. Write a revision for it: "
            'alembic -c db/alembic.ini revision --autogenerate -m "..."'
        ) from error
    finally:
        del config.attributes["differences"]


def downgrade(config: Config, connection: Connection) -> None:
    """Run ``downgrade base`` and check that it leaves nothing but Alembic's own table."""
    command.downgrade(config, "base")
    table = version_table.of(config)
    left = [
        f"{KINDS.get(kind, kind)} {schema}.{name}".rstrip(".")
        for kind, schema, name in connection.execute(LEFTOVERS, {"name": table.name, "schema": table.schema})
    ]
    if left:
        raise VerificationError(
            f"The downgrade to base left behind: {', '.join(left)}. Drop it in the downgrade() of "
            "the revision that made it."
        )


def offline(config: Config, connection: Connection) -> None:
    """Render ``upgrade head --sql``."""
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)


STEPS: Sequence[tuple[str, Callable[[Config, Connection], None]]] = (
    ("one head", one_head),
    ("upgrade head", upgrade),
    ("check: tables and revisions agree", no_difference),
    ("downgrade base: nothing left", downgrade),
    ("upgrade head again", upgrade),
    ("upgrade head --sql", offline),
)


def verify(report: Callable[[str], None], server: URL | None = None) -> None:
    """Run all steps on one connection to a throw-away database, telling `report` of each.

    Args:
        report: is told a line a step.
        server: an empty database that nobody needs, in place of a server of its own.

    Raises:
        VerificationError: naming the step that failed and why.
    """
    with nullcontext(server) if server else embedded.throw_away() as url:
        engine = create_engine(url, connect_args={"application_name": "verify"})
        with engine.connect() as connection:
            config = Config(ALEMBIC_INI, stdout=io.StringIO())
            config.attributes["connection"] = connection
            for name, step in STEPS:
                began = perf_counter()
                try:
                    step(config, connection)
                except VerificationError as error:
                    raise VerificationError(f"{name}: {error}") from error
                except Exception as error:
                    # Whatever a revision or a table module raises is a finding, not a fault of ours.
                    raise VerificationError(
                        f"{name}: {type(error).__name__}: {error}{_where(error)}"
                    ) from error
                # Alembic takes a transaction that is open, be it one that only read, for the caller's own.
                connection.rollback()
                report(f"ok  {name} ({perf_counter() - began:.2f} s)")
        engine.dispose()


def _where(error: BaseException) -> str:
    """Return the place in the workspace that the error came through last, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(WORKSPACE)) and ".venv" not in f.filename]
    return f"\n  at {ours[-1].filename}:{ours[-1].lineno}" if ours else ""


def main(arguments: Sequence[str]) -> int:
    """Verify, and print a line a step.

    Raises:
        ChassisError: naming the step that failed, and why.
    """
    verify(lambda line: print(line, flush=True))
    return 0
