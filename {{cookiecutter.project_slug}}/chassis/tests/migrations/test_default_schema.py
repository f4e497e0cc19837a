"""The workspace's own revisions where the default schema isn't `public`."""

from collections.abc import Callable

import pytest
from alembic import command
from sqlalchemy import URL, inspect

from chassis.database.engine import sync_engine
from chassis.testing.service import alembic_config_for


@pytest.mark.parametrize("path", ['"$user", public', "app, public"])
def test_revisions_go_to_the_default_schema(new_database: Callable[[], URL], path: str) -> None:
    url = new_database()
    schema = "app" if path.startswith("app") else str(url.username)
    engine = sync_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
        connection.exec_driver_sql(f'ALTER DATABASE "{url.database}" SET search_path = {path}')
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        connection.commit()
    engine.dispose()
    engine = sync_engine(url)
    with engine.connect() as connection:
        config = alembic_config_for(connection)
        command.upgrade(config, "head")
        connection.rollback()
        command.check(config)
        connection.rollback()
        assert "runs" in inspect(connection).get_table_names(schema=schema)
        assert inspect(connection).get_table_names(schema="public") == []
        connection.rollback()
        command.downgrade(config, "base")
        connection.rollback()
        assert inspect(connection).get_table_names(schema=schema) == ["alembic_version"]
    engine.dispose()
