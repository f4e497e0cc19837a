"""Each revision taken back and applied again leaves the very same catalogue."""

import re
from typing import Any

import pytest

from tests.support.code import Code
from tests.support.servers import Database

CATALOGUE = {
    "columns": """
        SELECT n.nspname, c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), obj_description(c.oid)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname !~ '^alembic_version'
         ORDER BY 1, 2, 4""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2""",
    "indexes": """
        SELECT schemaname, indexname, indexdef FROM pg_indexes
         WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2""",
    "types": """
        SELECT t.typname, e.enumlabel, obj_description(t.oid) FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
         ORDER BY t.typname, e.enumsortorder""",
}


# A line of the history, which may have branches: what it tells of, and whether that only joins.
STEP = re.compile(r"-> (\w+)")


def catalogue(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    return {part: database.rows(query) for part, query in CATALOGUE.items()}


@pytest.mark.full
def test_up_down_up_is_the_same(code: Code, database: Database) -> None:
    code.add(
        "more",
        "op.execute(\"CREATE TYPE mood AS ENUM ('good', 'bad')\")\n"
        'op.add_column("runs", sa.Column("mood", sa.dialects.postgresql.ENUM(name="mood", create_type=False), server_default="good"))\n'
        'op.create_check_constraint(op.f("ck_runs_agent"), "runs", "agent_id <> \'\'")',
        'op.drop_constraint(op.f("ck_runs_agent"), "runs")\nop.drop_column("runs", "mood")\nop.execute("DROP TYPE mood")',
    )
    exit_code, output = code.alembic(database.env, "history")
    assert exit_code == 0, output
    steps = [(found[1], "mergepoint" in line) for line in output.splitlines() if (found := STEP.search(line))]
    assert len(steps) >= 2
    for revision, is_merge in reversed(steps):
        before = catalogue(database)
        assert code.alembic(database.env, "upgrade", revision)[0] == 0
        after = catalogue(database)
        assert (after == before) is is_merge
        if is_merge:
            continue
        assert code.alembic(database.env, "downgrade", f"{revision}@-1")[0] == 0
        assert catalogue(database) == before
        assert code.alembic(database.env, "upgrade", revision)[0] == 0
        assert catalogue(database) == after
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
