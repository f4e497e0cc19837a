"""The models of whole projects: made, taken down to nothing, made again, and by SQL alone."""

from collections.abc import Callable
from io import StringIO
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from chassis.migrations.declared import describe_database
from chassis.tests.migrations.history import History, empty
from chassis.tests.migrations.models import MODELS
from chassis.tests.migrations.test_changes import history, server

__all__ = ["history", "server"]


@pytest.mark.parametrize("model", MODELS)
def test_model_is_made_and_taken_down(
    model: Callable[[], sa.MetaData], history: History, server: Connection
) -> None:
    history.metadata = model()
    assert history.autogenerate()
    history.run("upgrade", "head")
    assert history.differences() == []
    assert history.autogenerate() == ""
    made = describe_database(server, [None, "audit"])
    server.rollback()
    history.run("downgrade", "base")
    assert history.outline() == ({}, {})
    history.run("upgrade", "head")
    assert history.differences() == []

    # As text, run by nobody but PostgreSQL.
    history.config.output_buffer = StringIO()
    history.run("upgrade", "head", sql=True)
    statements = history.config.output_buffer.getvalue()
    empty(server)
    cursor = server.connection.cursor()
    cursor.execute(statements.replace("BEGIN;", "").replace("COMMIT;", ""))
    server.commit()
    by_text = describe_database(server, [None, "audit"])
    server.rollback()
    for described in (made, by_text):
        described.tables.pop((None, "alembic_version"))
    assert by_text == made


@pytest.mark.parametrize(("before", "after"), [*pairwise(MODELS), (MODELS[-1], MODELS[0])])
def test_model_becomes_another(
    before: Callable[[], sa.MetaData], after: Callable[[], sa.MetaData], history: History
) -> None:
    for model in (before, after):
        history.metadata = model()
        assert history.autogenerate()
        history.run("upgrade", "head")
        assert history.differences() == []
    history.run("downgrade", "-1")
    history.metadata = before()
    assert history.differences() == []
