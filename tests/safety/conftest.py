"""The servers, the code and the databases that the safety tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.code import Code
from tests.support.servers import Database, Server, debian_server, embedded_server
from tests.support.workspaces import Workspace


@pytest.fixture(scope="session")
def installed(without_knowledge: Workspace) -> Workspace:
    """The workspace without the knowledge agent: Debian's server has no pgvector."""
    return without_knowledge


@pytest.fixture(scope="session")
def debian() -> Iterator[Server]:
    with debian_server() as server:
        yield server


@pytest.fixture(scope="session")
def embedded() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as server:
        yield server


@pytest.fixture
def database(debian: Server) -> Database:
    return debian.new_database()


@pytest.fixture
def code(installed: Workspace, tmp_path: Path) -> Code:
    """A copy of the workspace's db/, for the test to add revisions to."""
    return Code.copy(installed.path, tmp_path / "code")
