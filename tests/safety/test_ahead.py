"""The database and the code are of different age, or of different branches."""

import pytest

from tests.support.code import Code
from tests.support.servers import Database


@pytest.fixture
def newer(code: Code, database: Database) -> Code:
    """Newer code, which has migrated the database two revisions past `code`."""
    newer = code.newer(code.path.parent / "newer")
    newer.add("aaa1", 'op.create_table("later", sa.Column("a", sa.Integer))', 'op.drop_table("later")')
    newer.add("aaa2", 'op.add_column("later", sa.Column("b", sa.Integer))', 'op.drop_column("later", "b")')
    assert newer.alembic(database.env, "upgrade", "head")[0] == 0
    return newer


def test_a_rolled_back_image_stops_with_an_explanation(code: Code, newer: Code, database: Database) -> None:
    for command in (("upgrade", "head"), ("downgrade", "-1"), ("check",), ("current",)):
        exit_code, output = code.alembic(database.env, *command)
        assert exit_code == 255
        assert "Traceback" not in output
        assert (
            f"The database is at revision aaa2, which this code doesn't have; its head is {code.head}."
            in output
        )
        assert "ahead of this older image by 2 revision(s), aaa1, aaa2." in output
        assert "MIGRATE_WHEN_AHEAD=start" in output


@pytest.mark.full
def test_a_rolled_back_image_starts_where_that_is_wanted(code: Code, newer: Code, database: Database) -> None:
    exit_code, output = code.alembic({**database.env, "MIGRATE_WHEN_AHEAD": "start"}, "upgrade", "head")
    assert exit_code == 0, output
    assert "Nothing is migrated, as MIGRATE_WHEN_AHEAD=start says" in output
    assert "ahead of this older image" in output
    assert database.rows("SELECT version_num FROM alembic_version") == [("aaa2",)]


@pytest.mark.full
def test_another_branch_is_told_from_newer_code(code: Code, newer: Code, database: Database) -> None:
    other = code.newer(code.path.parent / "other")
    other.add("bbb1", "pass")
    exit_code, output = other.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "It never had this code's head: the revision comes from another branch" in output


@pytest.mark.full
def test_without_a_record_nothing_is_claimed(code: Code, newer: Code, database: Database) -> None:
    database.execute("COMMENT ON TABLE alembic_version IS NULL")
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "the database holds no record that tells which" in output


@pytest.mark.full
def test_a_stale_record_is_not_believed(code: Code, newer: Code, database: Database) -> None:
    database.execute("UPDATE alembic_version SET version_num = 'elsewhere'")
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "the database holds no record that tells which" in output


@pytest.mark.full
def test_a_bad_policy_is_refused(code: Code, database: Database) -> None:
    exit_code, output = code.alembic({**database.env, "MIGRATE_WHEN_AHEAD": "ignore"}, "upgrade", "head")
    assert exit_code == 255
    assert "FAILED: MIGRATE_WHEN_AHEAD must be one of error, start, not 'ignore'." in output


def test_two_heads_are_refused_and_a_merge_is_applied(code: Code, database: Database) -> None:
    first = code.head
    code.add("left", 'op.create_table("left_table")', 'op.drop_table("left_table")')
    code.add("right", 'op.create_table("right_table")', 'op.drop_table("right_table")', down=first)
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "Multiple head revisions are present" in output
    assert "Traceback" not in output
    assert code.alembic(database.env, "upgrade", "heads")[0] == 0
    assert code.alembic(database.env, "merge", "-m", "Join", "heads")[0] == 0
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 0, output
    assert len(database.rows("SELECT version_num FROM alembic_version")) == 1


@pytest.mark.full
def test_the_way_out_with_stamp_stays_open(code: Code, newer: Code, database: Database) -> None:
    exit_code, output = code.alembic(database.env, "stamp", "--purge", "head")
    assert exit_code == 0, output
    assert database.rows("SELECT version_num FROM alembic_version") == [(code.head,)]


@pytest.mark.full
def test_a_mistyped_revision_is_an_error_at_head_too(code: Code, database: Database) -> None:
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    exit_code, output = code.alembic(database.env, "upgrade", "deadbeef")
    assert exit_code == 255
    assert "Can't locate revision identified by 'deadbeef'" in output


@pytest.mark.full
def test_a_downgrade_needs_no_new_record(code: Code, newer: Code, database: Database) -> None:
    """After newer code has gone back, the older one finds itself at head; the record follows."""
    assert newer.alembic(database.env, "downgrade", str(code.head))[0] == 0
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    ((record,),) = database.rows("SELECT obj_description('alembic_version'::regclass)")
    assert record.startswith("revisions: ")
    assert record.endswith(str(code.head))
