"""PgBouncer in transaction mode between the app and the database; migrations go around it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.code import Code
from tests.support.servers import (
    Database,
    Server,
    answers,
    as_servant,
    free_port,
    missing,
    own_by_servant,
    wait_until,
)


@pytest.fixture
def pooler(debian: Server) -> Iterator[Server]:
    """PgBouncer in front of Debian's server, as the app would see it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("pgbouncer")
        raise AssertionError
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        assert debian.password is not None
        secret = debian.password.replace('"', '""')
        (folder / "users").write_text(f'"{debian.user}" "{secret}"\n')
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={debian.host} port={debian.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\n"
            "pool_mode = transaction\nignore_startup_parameters = extra_float_digits\n"
        )
        for path in (folder, *folder.iterdir()):
            own_by_servant(path)
        process = subprocess.Popen(
            as_servant(program, folder / "pgbouncer.ini"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server = Server("127.0.0.1", port, debian.user, debian.password)
        try:
            wait_until(lambda: answers(server), 15)
            yield server
        finally:
            process.terminate()
            process.wait(10)


def test_migrations_go_around_the_pooler(
    code: Code, pooler: Server, debian: Server, database: Database
) -> None:
    app = {**database.env, "DB_PORT": str(pooler.port)}
    exit_code, output = code.alembic({**app, "MIGRATE_DB_PORT": str(debian.port)}, "upgrade", "head")
    assert (exit_code, "pooler" in output) == (0, False), output
    with psycopg.connect(
        host=pooler.host, port=pooler.port, user=pooler.user, password=pooler.password, dbname=database.name
    ) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(code.head,)]


@pytest.mark.full
def test_a_migration_through_the_pooler_is_refused(code: Code, pooler: Server, database: Database) -> None:
    through = {**database.env, "DB_PORT": str(pooler.port)}
    exit_code, output = code.alembic(through, "upgrade", "head")
    assert exit_code == 255
    assert "goes through a pooler, where a lock gets lost" in output
    assert "MIGRATE_DATABASE_URL" in output
    # At head there is nothing to lock, so a start through the pooler is as good as any.
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    assert code.alembic(through, "upgrade", "head")[0] == 0


@pytest.mark.full
def test_the_app_goes_through_the_pooler(
    code: Code, pooler: Server, debian: Server, database: Database
) -> None:
    """Its sessions may be given another server connection in each transaction."""
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    env = {**database.env, "DB_PORT": str(pooler.port)}
    done = subprocess.run(
        [code.python, "-c", APP],
        cwd=code.path,
        env=code.environment(env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "400"


APP = """
import asyncio
from sqlalchemy import text
from chassis.database.engine import async_engine, session_factory

async def work(sessions):
    for _ in range(20):
        async with sessions() as session:
            await session.execute(text("SELECT count(*) FROM runs WHERE agent_id = :agent"), {"agent": "x"})
            await session.commit()
    return 20

async def main():
    engine = async_engine()
    sessions = session_factory(engine)
    print(sum(await asyncio.gather(*(work(sessions) for _ in range(20)))))
    await engine.dispose()

asyncio.run(main())
"""
