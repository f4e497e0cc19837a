"""The roles of the database, from variables as files and secrets hold them."""

from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from chassis.database import roles
from chassis.settings import ChassisError


def test_line_breaks_at_the_ends_are_nobodys(postgres: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of DB_USER and DB_PASS the service takes away too, so it would be refused by a role that has them.
    app, migrator = (f"role_{uuid4().hex}" for _ in range(2))
    with postgres.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {app}"))
    url = postgres.url.set(database=app)
    for name, value in {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "DB_USER": app,
        "DB_PASS": "p",
        "MIGRATE_DB_USER": migrator,
        "MIGRATE_DB_PASS": "q",
        "ADMIN_DB_USER": url.username or "postgres",
        "ADMIN_DB_PASS": url.password or "any",
    }.items():
        monkeypatch.setenv(name, f"{value}\n")
    assert roles.main(()) == 0
    with postgres.connect() as connection:
        known = connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'role\\_%'")).all()
    assert {app, migrator} <= set(known)


@pytest.mark.parametrize("name", [name for name in roles.REQUIRED if name.endswith("_PASS")])
def test_blanks_of_a_password_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in roles.REQUIRED:
        monkeypatch.setenv(each, "x" if each != name else "x ")
    with pytest.raises(ChassisError, match=f"{name} begins or ends with a blank, which can't be seen"):
        roles.main(())
