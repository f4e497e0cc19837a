"""The servers, the code and the databases that the safety tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Workspace, cookiecutter
from tests.safety.code import Code
from tests.safety.servers import Database, Server, debian_server, embedded_server


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace without the knowledge agent: Debian's server has no pgvector."""
    output = tmp_path_factory.mktemp("without-knowledge")
    outcome = cookiecutter(output, {"use_knowledge": "no", "init_git": "no"})
    assert outcome.code == 0, outcome.output
    return Workspace(output / "agent-api")


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
