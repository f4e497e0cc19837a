"""Make the two roles of the database, or give them new passwords: ``python -m chassis roles``.

The role that migrates owns the tables. The service's reads and writes rows, and can do nothing else. Run this
before the first migration, once after it, and whenever a name or a password has changed. It needs

- DB_USER and DB_PASS, MIGRATE_DB_USER and MIGRATE_DB_PASS: what the two shall be called, and their passwords;
- ADMIN_DB_USER and ADMIN_DB_PASS: a role that may create roles;
- DB_HOST and the rest, as always.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql
from sqlalchemy import create_engine, pool

from chassis.database.connection import connect
from chassis.database.settings import DatabaseSettings
from chassis.database.version_table import VersionTable
from chassis.settings import ChassisError, SettingsError, trimmed

WAIT = 60
REQUIRED = ("DB_USER", "DB_PASS", "MIGRATE_DB_USER", "MIGRATE_DB_PASS", "ADMIN_DB_USER", "ADMIN_DB_PASS")

# What a migration makes from now on, the service may use. Nobody else gets in, and nobody else creates anything.
GRANTS = """
REVOKE ALL ON DATABASE {database} FROM PUBLIC
REVOKE ALL ON SCHEMA public FROM PUBLIC
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database} TO {migrator}
GRANT CONNECT ON DATABASE {database} TO {app}
GRANT USAGE, CREATE ON SCHEMA public TO {migrator}
GRANT USAGE ON SCHEMA public TO {app}
GRANT {migrator} TO CURRENT_USER
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} GRANT USAGE ON SCHEMAS TO {app}
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} GRANT USAGE, SELECT ON SEQUENCES TO {app}
""".strip().splitlines()
# For what is there already, by kind.
OWNED = """
SELECT relkind = 'S', relname = %(name)s AND nspname = coalesce(%(schema)s, 'public'), nspname, relname FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_get_userbyid(relowner) = %(owner)s AND relkind IN ('r', 'p', 'v', 'm', 'S')
"""


def make_roles(connection: psycopg.Connection, env: Mapping[str, str]) -> None:
    """Make the roles that the variables name, or change their passwords, and grant what each needs."""

    def run(statement: str, **names: str) -> None:
        identifiers = {name: sql.Identifier(value) for name, value in names.items()}
        connection.execute(sql.SQL(statement).format(**identifiers))

    app, migrator = env["DB_USER"], env["MIGRATE_DB_USER"]
    for role, password in ((app, env["DB_PASS"]), (migrator, env["MIGRATE_DB_PASS"])):
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        # Only its hash, so that no log of the server ever has the password itself.
        hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        login = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}" if known else "CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(login.format(sql.Identifier(role), sql.Literal(hashed.decode())))
    for statement in GRANTS:
        run(statement, app=app, migrator=migrator, database=connection.info.dbname)
    version_table = VersionTable.read()
    owned = {"owner": migrator, "name": version_table.name, "schema": version_table.schema}
    for sequence, alembics, schema, name in connection.execute(OWNED, owned).fetchall():
        thing = {"app": app, "schema": schema, "name": name}
        run("GRANT USAGE ON SCHEMA {schema} TO {app}", app=app, schema=schema)
        if sequence:
            run("GRANT USAGE, SELECT ON SEQUENCE {schema}.{name} TO {app}", **thing)
        elif alembics:
            run("REVOKE ALL ON {schema}.{name} FROM {app}", **thing)
            run("GRANT SELECT ON {schema}.{name} TO {app}", **thing)
        else:
            run("GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.{name} TO {app}", **thing)
    # Only an administrator may create it, so a migration that wants it must find it there.
    if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            run("CREATE EXTENSION IF NOT EXISTS vector")


def main(arguments: Sequence[str]) -> int:
    """Make the roles of the environment's settings.

    Raises:
        ChassisError: saying what is wrong; the roles are then as they were.
    """
    try:
        env = trimmed(os.environ, REQUIRED)
        if missing := [name for name in REQUIRED if not env.get(name)]:
            raise SettingsError(f"{', '.join(missing)} is missing. See db/SAFE_MIGRATIONS.md, Two roles.")
        url = DatabaseSettings.from_env(env).url
        if url is None:
            raise SettingsError("DB_HOST is missing. The embedded database has no roles of its own.")
        url = url.set(username=env["ADMIN_DB_USER"], password=env["ADMIN_DB_PASS"])
        engine = create_engine(url, poolclass=pool.NullPool, connect_args={"application_name": "roles"})
        with connect(engine, WAIT) as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)  # noqa: S101
            make_roles(driver, env)
            driver.commit()
    except (ChassisError, psycopg.Error) as error:
        raise ChassisError(f"The roles are as they were: {str(error).strip()}") from error
    print(f"{env['MIGRATE_DB_USER']} migrates, {env['DB_USER']} serves.")
    return 0
