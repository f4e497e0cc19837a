"""Each change of the table: written by autogenerate, run on rows, taken back, and what PostgreSQL prints then."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.util import CommandError
from sqlalchemy import URL, Connection, exc

from chassis.database.engine import sync_engine
from chassis.tests.migrations.cases import CASES, Case
from chassis.tests.migrations.history import History, empty, new_metadata


@pytest.fixture(scope="module")
def server(new_database: Callable[[], URL]) -> Iterator[Connection]:
    engine = sync_engine(new_database())
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def history(server: Connection, tmp_path: Path) -> History:
    empty(server)
    return History(server, tmp_path)


def declare(history: History, side: Callable[..., None]) -> None:
    history.metadata = new_metadata()
    side(history.metadata)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_change(case: Case, history: History, capsys: pytest.CaptureFixture[str]) -> None:
    declare(history, case.before)
    history.autogenerate()
    history.run("upgrade", "head")
    assert history.differences() == []
    before = history.outline()
    history.execute(*case.rows)

    declare(history, case.after)
    capsys.readouterr()
    if case.refused:
        with pytest.raises(CommandError, match=case.refused):
            history.autogenerate()
        return
    written = history.autogenerate()
    told = capsys.readouterr().out
    if case.fails:
        assert case.fails in told
        with pytest.raises(exc.DBAPIError, match=case.fails):
            history.run("upgrade", "head")
        return
    assert bool(written) is not case.same
    if case.same:
        assert history.differences() == []
        return
    assert "leaves it to you" not in told
    history.run("upgrade", "head")
    assert history.differences() == []
    if case.kept is not None:
        assert tuple(history.rows(case.query)) == case.kept
    assert history.autogenerate() == ""
    if case.one_way:
        assert "the way back fails" in told
        return
    assert "way back" not in told
    history.run("downgrade", "-1")
    assert history.outline() == before
    declare(history, case.before)
    assert history.differences() == []
    declare(history, case.after)
    history.run("upgrade", "head")
    assert history.differences() == []
