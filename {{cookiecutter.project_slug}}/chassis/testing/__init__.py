"""A pytest plugin: a throw-away PostgreSQL, a scripted model's provider, and the service in a process of its own.

`pytest_plugins = ["chassis.testing"]` in a conftest.py brings its fixtures. Tests of one session share the servers,
since to start one takes seconds, and keep to conversations and rows of their own.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL, Engine, make_url, text

from chassis.database import embedded
from chassis.database.engine import Sessions, async_engine, session_factory, sync_engine
from chassis.testing.service import running, serving, upgrade


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to which services write their logs."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    """A server of its own, thrown away afterwards; or the one that TEST_DATABASE_URL names, for tests of another version."""
    given = os.environ.get("TEST_DATABASE_URL")
    with nullcontext(make_url(given)) if given else embedded.throw_away() as url:
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
    """A database at head."""
    url = new_database()
    upgrade(url)
    return url


@pytest.fixture
async def sessions(database: URL) -> AsyncIterator[Sessions]:
    """Sessions on that database, as tools and routes get them."""
    engine = async_engine(database)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
def provider(logs: Path) -> Iterator[httpx.Client]:
    """A provider whose model does what it is told, see chassis/testing/provider.py."""
    options = ("--timeout-graceful-shutdown", "1")
    with (
        running(logs / "provider", "chassis.testing.provider:app", *options) as server,
        httpx.Client(base_url=server.address) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def model(provider: httpx.Client) -> dict[str, str]:
    """The settings that make the service ask that provider."""
    return {
        "AGENT_MODEL": "openai-chat:fake",
        "OPENAI_API_KEY": "not-a-real-key",
        "OPENAI_BASE_URL": str(provider.base_url.join("/v1")),
    }


@pytest.fixture(scope="session")
def client(database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the service, whose agents are answered by that provider."""
    with serving(logs / "service", database, "api.main:app", **model) as client:
        yield client
