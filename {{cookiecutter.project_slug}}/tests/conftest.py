"""A throw-away PostgreSQL for all tests, and the service as a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, text

from db import embedded
from db.session import Sessions, async_engine, session_factory, sync_engine
from db.settings import WORKSPACE

ALEMBIC_INI = WORKSPACE / "db" / "alembic.ini"
# What the developer's shell may hold and no test may see: keys that cost money, a real database.
HIDDEN = re.compile(
    r"(AGENT|KNOWLEDGE|API|CHAT|DB|AWS|LOG|OTEL)_.*|.*_(API_KEY|BASE_URL)|DATABASE_URL|RUNTIME_ENV|MIGRATE_.*|WAIT_FOR_DB.*"
)


def clean_env(**variables: str) -> dict[str, str]:
    """The environment without what might reach something real, and with the variables."""
    return {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)} | variables


def alembic_config_for(connection: Connection) -> Config:
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    return config


def upgrade(url: URL) -> None:
    """Give a database all tables."""
    engine = sync_engine(url)
    with engine.connect() as connection:
        command.upgrade(alembic_config_for(connection), "head")
    engine.dispose()


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
    upgrade(url)
    return url


@pytest.fixture
async def sessions(database: URL) -> AsyncIterator[Sessions]:
    engine = async_engine(database)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
def alembic_engine(new_database: Callable[[], URL]) -> Iterator[Engine]:
    """The empty database that pytest-alembic's tests run on."""
    engine = sync_engine(new_database())
    yield engine
    engine.dispose()


@pytest.fixture
def alembic_config() -> Config:
    return Config(ALEMBIC_INI)


@contextmanager
def unreachable(postgres: Engine, url: URL) -> Iterator[None]:
    """Close a database's connections and refuse new ones."""
    with postgres.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": url.database},
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true"))


class Server(NamedTuple):
    """A process that serves."""

    process: subprocess.Popen[bytes]
    address: str


@contextmanager
def running(log: Path, app: str, *options: str, **variables: str) -> Iterator[Server]:
    """Run an app in a process; `log` gets what it writes."""
    with log.open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", app, "--port", "0", *options],
            cwd=WORKSPACE,
            env=clean_env(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Server(process, _address(process, log))
        finally:
            process.terminate()
            process.wait(timeout=20)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"running on (http://\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"The service did not start:\n{log.read_text(encoding='utf-8')}")


def service(log: Path, url: URL, **variables: str) -> AbstractContextManager[Server]:
    """Run the service on a database."""
    address = url.render_as_string(hide_password=False)
    return running(log, "api.main:app", DATABASE_URL=address, **variables)


@contextmanager
def serving(log: Path, url: URL, **variables: str) -> Iterator[httpx.Client]:
    """Run the service on a database, and yield a client for it."""
    with (
        service(log, url, **variables) as server,
        httpx.Client(base_url=server.address, timeout=20) as client,
    ):
        yield client


def create_key(url: URL, name: str = "tests", *options: str) -> str:
    """Make an API key, with the command that people make them with."""
    printed = subprocess.run(
        [sys.executable, "-m", "api.keys", "create", name, *options],
        cwd=WORKSPACE,
        env=clean_env(DATABASE_URL=url.render_as_string(hide_password=False)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = re.search(r"\bak_\S+", printed)
    assert found, printed
    return found[0]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def dev(database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service in development, without a key: the demonstration model answers."""
    with serving(logs / "dev", database) as client:
        yield client


@pytest.fixture(scope="session")
def provider(logs: Path) -> Iterator[httpx.Client]:
    """The fake provider of the models, see tests/provider.py."""
    with (
        running(logs / "provider", "tests.provider:app", "--timeout-graceful-shutdown", "1") as server,
        httpx.Client(base_url=server.address) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def model(provider: httpx.Client) -> dict[str, str]:
    """The settings that make the service ask the fake provider."""
    return {
        "AGENT_MODEL": "openai-chat:fake",
        "OPENAI_API_KEY": "not-a-real-key",
        "OPENAI_BASE_URL": str(provider.base_url.join("/v1")),
    }


@pytest.fixture(scope="session")
def scripted(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service with a model that does what it is told, and little patience."""
    patience = {
        "AGENT_TIMEOUT": "3",
        "AGENT_REQUEST_LIMIT": "3",
        "AGENT_RESUME_SECONDS": "0.3",
        "API_PING_SECONDS": "0.1",
    }
    with serving(logs / "scripted", database, **model, **patience) as client:
        yield client


@pytest.fixture(scope="session")
def prd(new_database: Callable[[], URL], logs: Path) -> Iterator[httpx.Client]:
    """The service in production, with a key to call it, but none for a model."""
    url = new_database()
    upgrade(url)
    with serving(logs / "prd", url, RUNTIME_ENV="prd") as client:
        client.headers["Authorization"] = f"Bearer {create_key(url)}"
        yield client
