"""The service of the chassis' own tests, whose agents are in chassis/tests/agents, with all kinds of settings."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from chassis.testing.service import Server, upgrade
from chassis.tests.issuer import AUDIENCE, Issuer, serving_issuer
from chassis.tests.service import create_key, service, serving

pytest_plugins = ["chassis.testing"]


@pytest.fixture(scope="session")
def dev(database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service in development, without a key: the demonstration model answers."""
    with serving(logs / "dev", database) as client:
        yield client


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
def servers(database: URL, logs: Path, model: dict[str, str]) -> Iterator[list[Server]]:
    """Two processes of the service on one database. In the second, streams nobody reads end at once."""
    with (
        service(logs / "one", database, **model) as one,
        service(logs / "two", database, **model, AGENT_RESUME_SECONDS="0.3") as two,
    ):
        yield [one, two]


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    """Whoever vouches for people. A test that changes it has one of its own."""
    with serving_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="session")
def locked(database: URL, logs: Path, model: dict[str, str], issuer: Issuer) -> Iterator[httpx.Client]:
    """The service as in production, where callers need a key or a token, but with the OpenAPI document."""
    people = {"OIDC_ISSUER": issuer.address, "OIDC_AUDIENCE": AUDIENCE}
    with serving(logs / "locked", database, API_KEYS_REQUIRED="True", **people, **model) as client:
        yield client


@pytest.fixture(scope="session")
def own_database(new_database: Callable[[], URL]) -> URL:
    """A database at head, for tests that break it and mend it again."""
    url = new_database()
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def own(own_database: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    """The service on that database, with settings that must stop nothing."""
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "MIGRATE_WHEN_AHEAD": "start"}
    with serving(logs / "own", own_database, **nowhere, **model) as client:
        yield client


@pytest.fixture(scope="session")
def prd(database: URL, logs: Path) -> Iterator[httpx.Client]:
    """The service in production, with a key to call it, but none for a model."""
    with serving(logs / "prd", database, RUNTIME_ENV="prd") as client:
        client.headers["Authorization"] = f"Bearer {create_key(database)}"
        yield client
