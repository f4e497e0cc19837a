"""pytest-alembic's own tests of the revisions, on an empty database of the throw-away server.

They are imported, rather than switched on in the settings, so that this file runs like any other.
"""

from pytest_alembic import MigrationContext
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, inspect

from db.tables import Base

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


def test_these_tests_run_on_the_database_of_their_own(
    alembic_runner: MigrationContext, alembic_engine: Engine
) -> None:
    assert inspect(alembic_engine).get_table_names() == []
    alembic_runner.migrate_up_to("head")
    assert {*Base.metadata.tables, "alembic_version"} <= set(inspect(alembic_engine).get_table_names())
