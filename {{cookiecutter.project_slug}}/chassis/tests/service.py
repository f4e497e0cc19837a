"""Running the service of the chassis' own tests."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import URL, update

from chassis.database.engine import sync_engine
from chassis.keys.tables import ApiKey
from chassis.testing import service as testing

AGENTS = Path(__file__).with_name("agents")

service = partial(testing.service, app="chassis.tests.app:app")
serving = partial(testing.serving, app="chassis.tests.app:app")
users_command = testing.users_command
keys_command = partial(testing.keys_command, agents=AGENTS)


def create_key(url: URL, name: str = "tests", *options: str) -> str:
    """Make an API key."""
    return keys_command(url, "create", name, *options)


def id_of(key: str) -> str:
    """Return the id that a key begins with."""
    return key.split("_")[1]


def change_key(url: URL, key: str, **values: datetime) -> None:
    """Change what is stored of an API key."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        done = connection.execute(update(ApiKey).where(ApiKey.id == id_of(key)).values(values))
        assert done.rowcount == 1
    engine.dispose()


def create_limited_key(url: URL, requests_per_minute: int) -> str:
    """Make an API key whose first minute lasts for an hour: no test can be slow enough to see its end."""
    key = create_key(url, "limited", "--requests-per-minute", str(requests_per_minute))
    change_key(url, key, window_started_at=datetime.now(UTC) + timedelta(hours=1))
    return key
