"""What only SQL put on a table of ours stays; what a class lost goes, however its revision made it."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from chassis.tests.migrations.cases import col, ix, things
from chassis.tests.migrations.history import History, new_metadata
from chassis.tests.migrations.test_changes import declare, history, server

__all__ = ["history", "server"]

BY_SQL = """
    op.execute('CREATE INDEX IF NOT EXISTS "by SQL" ON things (x)')
    op.execute("ALTER TABLE things ADD COLUMN z int, ADD CONSTRAINT positive CHECK (z > 0)")
    op.execute("CREATE VIEW shown AS SELECT x FROM things")
    op.execute("CREATE TYPE pair AS (a int, b int)")
"""


def written_by_hand(history: History, body: str) -> None:
    script = command.revision(history.config, "by hand")
    path = next(history.versions.glob(f"*{script.revision}*"))  # type: ignore[union-attr]
    path.write_text(
        path.read_text(encoding="utf-8").replace("    pass", body.strip("\n"), 1), encoding="utf-8"
    )
    history.run("upgrade", "head")


def test_what_a_revision_made_by_sql_is_left_alone(history: History) -> None:
    declare(history, things(col(sa.Integer)))
    history.autogenerate()
    written_by_hand(history, BY_SQL)
    assert history.differences() == []
    assert history.autogenerate() == ""
    # A change of the same table leaves it alone too.
    declare(history, things(col(sa.BigInteger), ix("x")))
    history.connection.exec_driver_sql("DROP VIEW shown")
    history.connection.commit()
    assert "by SQL" not in history.autogenerate()
    history.run("upgrade", "head")
    assert history.differences() == []


@pytest.mark.parametrize("named", ["", "by_* positive z"])
def test_what_nobody_made_is_told_unless_it_is_named(history: History, named: str) -> None:
    declare(history, things(col(sa.Integer)))
    history.autogenerate()
    history.run("upgrade", "head")
    history.execute(
        "CREATE INDEX by_admin ON things (x)",
        "ALTER TABLE things ADD COLUMN z int, ADD CONSTRAINT positive CHECK (z > 0)",
    )
    history.config.set_main_option("made_by_hand", named)
    told = " ".join(history.differences())
    for words in (
        "index by_admin of things",
        "CHECK positive of things",
        "things.z: the database has the column",
    ):
        assert (words in told) is not bool(named)
    assert bool(history.autogenerate()) is not bool(named)


def test_what_sql_only_made_anew_is_not_taken_for_made_by_hand(history: History) -> None:
    """A new label makes the type anew and with it the index, by SQL; then the class loses the index."""
    mood: Any = {"postgresql_where": sa.text("x = 'a'")}
    declare(history, things(col(sa.Enum("a", "b", name="mood")), ix("x", **mood)))
    history.autogenerate()
    history.run("upgrade", "head")
    declare(history, things(col(sa.Enum("b", "a", name="mood")), ix("x", **mood)))
    assert "CREATE INDEX ix_things_x" in history.autogenerate()
    history.run("upgrade", "head")
    history.metadata = new_metadata()
    things(col(sa.Enum("b", "a", name="mood")))(history.metadata)
    assert history.differences() == [
        "index ix_things_x of things: the database has CREATE INDEX ix_things_x ON things USING btree (x) WHERE x = 'a'::mood, the classes nothing"
    ]
    assert "op.drop_index" in history.autogenerate()
