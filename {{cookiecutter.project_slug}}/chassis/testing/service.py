"""Running the service, and the commands beside it, in an environment that can reach nothing real."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, text

from chassis.database.engine import sync_engine
from chassis.keys import command as keys
from chassis.keys import people
from chassis.settings import ALEMBIC_INI, WORKSPACE

# What the developer's shell may hold and no test may see: keys that cost money, a real database. Nor that
# Python may keep no bytecode: each service would compile all libraries anew.
HIDDEN = re.compile(
    r"(AGENT|KNOWLEDGE|API|CHAT|DB|AWS|LOG|OTEL|OIDC|USER|KEEP)_.*|.*_(API_KEY|BASE_URL)|DATABASE_URL|RUNTIME_ENV|MIGRATE_.*"
    r"|WAIT_FOR_DB.*|PYTHONDONTWRITEBYTECODE"
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


def service(log: Path, url: URL, app: str, **variables: str) -> AbstractContextManager[Server]:
    """Run the service on a database."""
    address = url.render_as_string(hide_password=False)
    return running(log, app, DATABASE_URL=address, **variables)


@contextmanager
def serving(log: Path, url: URL, app: str, **variables: str) -> Iterator[httpx.Client]:
    """Run the service on a database, and yield a client for it."""
    with (
        service(log, url, app, **variables) as server,
        httpx.Client(base_url=server.address, timeout=20) as client,
    ):
        yield client


def keys_command(url: URL, *arguments: str, agents: Path = keys.AGENTS) -> str:
    """Run the command that people make API keys with, and return what it prints."""
    return _command(url, partial(keys.main, arguments, agents))


def _command(url: URL, run: Callable[[], int]) -> str:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        for name in filter(HIDDEN.fullmatch, list(os.environ)):
            patch.delenv(name)
        patch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        run()
    return printed.getvalue().strip()


def users_command(url: URL, *arguments: str) -> str:
    """Run the command for the people who call, and return what it prints."""
    return _command(url, partial(people.main, arguments))


def create_key(url: URL, name: str = "tests", *options: str) -> str:
    """Make an API key."""
    return keys_command(url, "create", name, *options)
