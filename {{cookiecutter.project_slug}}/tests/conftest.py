"""A throw-away PostgreSQL for all tests, and the service as a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import embedded
from db.session import async_engine, session_factory, sync_engine
from db.settings import WORKSPACE

ALEMBIC_INI = WORKSPACE / "db" / "alembic.ini"
TOKEN = "t" * 32
# What no caller may ever see.
SECRET = "sk-live-0123456789"
# What the developer's shell may hold and no test may see: keys that cost money, a real database.
HIDDEN = re.compile(
    r"(AGENT|API|DB|AWS)_.*|.*_(API_KEY|BASE_URL)|DATABASE_URL|RUNTIME_ENV|MIGRATE_.*|WAIT_FOR_DB.*"
)


def clean_env(**variables: str) -> dict[str, str]:
    """The environment without what might reach something real, and with the variables."""
    return {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)} | variables


def alembic_config_for(connection: Connection) -> Config:
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    """A server of its own, thrown away afterwards."""
    with embedded.throw_away() as url:
        engine = sync_engine(url, application_name="tests").execution_options(isolation_level="AUTOCOMMIT")
        yield engine
        engine.dispose()


@pytest.fixture(scope="session")
def new_database(postgres: Engine) -> Callable[[], URL]:
    """Make an empty database."""
    made: list[str] = []

    def make() -> URL:
        made.append(f"test_{len(made)}")
        with postgres.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made[-1]}"))
        return postgres.url.set(database=made[-1])

    return make


@pytest.fixture(scope="session")
def database(new_database: Callable[[], URL]) -> URL:
    """A database at head, shared by the tests that keep to conversations of their own."""
    url = new_database()
    engine = sync_engine(url)
    with engine.connect() as connection:
        command.upgrade(alembic_config_for(connection), "head")
    engine.dispose()
    return url


@pytest.fixture
async def sessions(database: URL) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = async_engine(database)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
def alembic_engine(new_database: Callable[[], URL]) -> Iterator[Connection]:
    """The empty database that pytest-alembic's tests run on; env.py takes a connection."""
    engine = sync_engine(new_database())
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def alembic_config() -> Config:
    return Config(ALEMBIC_INI)


@contextmanager
def serving(log: Path, url: URL, app: str = "api.main:app", **variables: str) -> Iterator[httpx.Client]:
    """Run the service in a process and yield a client for it; `log` gets what it writes."""
    address = url.render_as_string(hide_password=False)
    with log.open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", app, "--port", "0"],
            cwd=WORKSPACE,
            env=clean_env(DATABASE_URL=address, **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=_address(process, output, log), timeout=20) as client:
                yield client
        finally:
            process.terminate()
            process.wait(timeout=20)


def _address(process: subprocess.Popen[bytes], output: IO[str], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"running on (http://\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"The service did not start:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def dev(database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service in development, without a key: the demonstration model answers."""
    with serving(logs / "dev", database) as client:
        yield client


@pytest.fixture(scope="session")
def scripted(database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service with a model that does what it is told (tests/scripted.py)."""
    with serving(
        logs / "scripted", database, "tests.scripted:app", AGENT_TIMEOUT="2", AGENT_REQUEST_LIMIT="3"
    ) as client:
        yield client


@pytest.fixture(scope="session")
def empty_database(new_database: Callable[[], URL]) -> URL:
    """The database of the service in production, which has no tables at first."""
    return new_database()


@pytest.fixture(scope="session")
def prd(empty_database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service in production, with a token but no key."""
    with serving(logs / "prd", empty_database, RUNTIME_ENV="prd", API_TOKEN=TOKEN) as client:
        yield client
