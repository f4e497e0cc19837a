"""What is kept no longer than wanted, and all of somebody's: handed over, and erased."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import (
    URL,
    Column,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    select,
    text,
    update,
)

from chassis.conversations.store import DatabaseConversationStore
from chassis.conversations.tables import Conversation, ConversationEntry
from chassis.database.base import Base
from chassis.database.engine import Sessions, async_engine, session_factory, sync_engine
from chassis.keys.tables import ApiKeyUsage
from chassis.retention import belongings, housekeeping, portions
from chassis.retention.settings import RetentionSettings
from chassis.runs.tables import Run, RunStatus
from chassis.testing.client import ask, check_problem, wait_for
from chassis.testing.service import clean_env, upgrade
from chassis.tests.issuer import Issuer
from chassis.tests.service import create_key, id_of, serving

LONG_AGO = datetime.now(UTC) - timedelta(days=40)


@pytest.fixture(scope="module")
def url(new_database: Callable[[], URL]) -> URL:
    """A database of its own, since what is old here is deleted."""
    url = new_database()
    upgrade(url)
    return url


@pytest.fixture(scope="module")
def engine(url: URL) -> Iterator[Engine]:
    engine = sync_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
async def everything(url: URL) -> Any:
    engine = async_engine(url)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
def service(url: URL, logs: Path, model: dict[str, str]) -> Iterator[httpx.Client]:
    with serving(logs / "retention", url, **model) as client:
        yield client


def scalar(engine: Engine, statement: Any) -> Any:
    with engine.connect() as connection:
        return connection.scalar(statement)


def make_old(engine: Engine, conversation_id: str, *, of: str = "all") -> None:
    with engine.begin() as connection:
        if of in ("all", "conversation"):
            old = update(Conversation).where(Conversation.id == conversation_id).values(updated_at=LONG_AGO)
            connection.execute(old)
        if of in ("all", "runs"):
            ran = update(Run).where(Run.conversation_id == conversation_id).values(finished_at=LONG_AGO)
            connection.execute(ran)


def ids(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(select(Conversation.id)))


@pytest.mark.anyio
async def test_what_is_too_old_goes_and_nothing_else(
    service: httpx.Client, engine: Engine, everything: Sessions
) -> None:
    made = [ask(service, f"number {n}").json()["conversation_id"] for n in range(3)]
    old, used_again, new = made
    for conversation in (old, used_again):
        make_old(engine, conversation)
    ask(service, "again", used_again)
    underway = ask(service, "hello").json()["conversation_id"]
    make_old(engine, underway)
    with engine.begin() as connection:
        last = select(Run.id).where(Run.conversation_id == underway).limit(1).scalar_subquery()
        connection.execute(
            update(Run).where(Run.id == last).values(status=RunStatus.RUNNING, finished_at=None)
        )
    before = scalar(engine, select(func.count()).select_from(ConversationEntry))
    await housekeeping.tidy(everything, RetentionSettings.from_env({"KEEP_CONVERSATIONS_DAYS": "30"}))
    assert {old, used_again, new, underway} & ids(engine) == {used_again, new, underway}
    assert scalar(engine, select(func.count()).select_from(ConversationEntry)) == before - 2
    # Of a conversation that is still used, old runs go by a setting of their own. What was said stays.
    runs = select(func.count()).select_from(Run).where(Run.conversation_id == used_again)
    assert scalar(engine, runs) == 2
    await housekeeping.tidy(everything, RetentionSettings.from_env({"KEEP_RUNS_DAYS": "30"}))
    assert scalar(engine, runs) == 1
    stored = await DatabaseConversationStore(everything).load_entries(used_again)
    assert stored is not None
    assert len(stored) == 4
    with engine.begin() as connection:
        connection.execute(
            update(Run).where(Run.status == RunStatus.RUNNING).values(status=RunStatus.INTERRUPTED)
        )


@pytest.mark.anyio
async def test_it_goes_in_portions(
    service: httpx.Client, engine: Engine, everything: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "PORTION", 2)
    monkeypatch.setattr(portions, "PAUSE_SECONDS", 0)
    for _ in range(5):
        make_old(engine, ask(service, "old").json()["conversation_id"])
    kept = {ask(service, "new").json()["conversation_id"]}
    both = {"KEEP_CONVERSATIONS_DAYS": "30", "KEEP_RUNS_DAYS": "30"}
    await housekeeping.tidy(everything, RetentionSettings.from_env(both))
    assert kept <= ids(engine)
    old = select(func.count()).select_from(Conversation).where(Conversation.updated_at <= LONG_AGO)
    assert scalar(engine, old) == 0


def test_the_service_does_it_by_itself(url: URL, engine: Engine, logs: Path, model: dict[str, str]) -> None:
    variables = {"KEEP_CONVERSATIONS_DAYS": "30", "KEEP_INTERVAL_SECONDS": "0.2", **model}
    with serving(logs / "tidy", url, **variables) as client:
        conversation = ask(client, "hello").json()["conversation_id"]
        make_old(engine, conversation)
        wait_for(lambda: conversation not in ids(engine), 20)
    assert "Deleted as too old: " in (logs / "tidy").read_text()


@pytest.mark.parametrize("name", ["CONVERSATIONS", "RUNS", "DOCUMENTS"])
@pytest.mark.parametrize("value", ["0", "-1", "ever"])
def test_wrong_settings_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"KEEP_{name}_DAYS: "):
        RetentionSettings.from_env({f"KEEP_{name}_DAYS": value})


# All of somebody's


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def owned(engine: Engine, owner: str) -> dict[str, int]:
    counts = {}
    for table, column in ((Conversation, "scope"), (Run, "owner"), (ApiKeyUsage, "owner")):
        of = select(func.count()).select_from(table).where(getattr(table, column) == owner)
        counts[table.__tablename__] = scalar(engine, of)
    return counts


@pytest.fixture(scope="module")
def locked_engine(database: URL) -> Iterator[Engine]:
    engine = sync_engine(database)
    yield engine
    engine.dispose()


def test_one_takes_along_and_erases_ones_own(
    locked: httpx.Client, issuer: Issuer, locked_engine: Engine
) -> None:
    ada, bob = ({"Authorization": f"Bearer {issuer.token(who)}"} for who in ("owner|ada", "owner|bob"))
    first = ask(locked, "a secret \0 of Ada's", headers=ada).json()
    ask(locked, "more", first["conversation_id"], headers=ada)
    ask(locked, "of Bob's", headers=bob)
    found = lines(locked.get("/v1/me/data", headers=ada))
    assert [line["kind"] for line in found] == ["conversation", "run", "run", "usage"]
    conversation = found[0]
    assert conversation["id"] == first["conversation_id"]
    assert conversation["messages"][0]["parts"][-1]["content"] == "a secret \0 of Ada's"
    assert len(conversation["messages"]) == 4
    assert {line["output"] for line in found[1:3]} >= {first["output"]}
    assert "Bob" not in json.dumps(found)
    before = owned(locked_engine, "user:owner|bob")
    assert locked.delete("/v1/me/data", headers=ada).status_code == 204
    assert [line["kind"] for line in lines(locked.get("/v1/me/data", headers=ada))] == ["usage"]
    assert owned(locked_engine, "user:owner|ada") == {"conversations": 0, "runs": 0, "api_key_usage": 1}
    assert owned(locked_engine, "user:owner|bob") == before
    # Twice does no harm.
    assert locked.delete("/v1/me/data", headers=ada).status_code == 204


@pytest.mark.anyio
async def test_all_pages_and_own_tables(
    everything: Sessions, service: httpx.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "PORTION", 2)
    for n in range(5):
        ask(service, f"number {n}")
    mine = select(func.count()).select_from(Conversation).where(Conversation.scope == "anonymous")
    count = scalar(engine, mine)
    kinds = [json.loads(line)["kind"] async for line in belongings.export(everything, "anonymous")]
    assert kinds.count("conversation") == count
    names = {table.name for table in belongings.own_tables()}
    assert names.isdisjoint({"runs", "api_key_usage", "conversations"})
    for table in belongings.own_tables():
        assert "owner" in table.columns
    assert await belongings.erase(everything, "anonymous", with_usage=True) == count
    assert set(owned(engine, "anonymous").values()) == {0}


@pytest.mark.anyio
async def test_own_tables_whatever_they_look_like(
    everything: Sessions, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only rows of the owner go, also where a table has no key, and an owner that is a number is another's idea."""
    monkeypatch.setattr(portions, "PORTION", 2)
    tables = [
        Table("notes", Base.metadata, Column("id", Integer, primary_key=True), Column("owner", Text)),
        Table(
            "parts",
            Base.metadata,
            Column("note", ForeignKey("notes.id"), primary_key=True),
            Column("owner", Text),
        ),
        Table("keyless", Base.metadata, Column("owner", Text), Column("data", LargeBinary)),
        Table("numbered", Base.metadata, Column("id", Integer, primary_key=True), Column("owner", Integer)),
    ]
    try:
        for table in tables:
            table.create(engine)
        with engine.begin() as connection:
            for number in range(10):
                owner = "eve" if number < 5 else "mallory"
                connection.execute(tables[0].insert().values(id=number, owner=owner))
                connection.execute(tables[1].insert().values(note=number, owner=owner))
                connection.execute(tables[2].insert().values(owner=owner, data=b"\xff"))
                connection.execute(tables[3].insert().values(id=number, owner=5))
        kinds = Counter([json.loads(line)["kind"] async for line in belongings.export(everything, "eve")])
        assert kinds == {"notes": 5, "parts": 5, "keyless": 5}
        await belongings.erase(everything, "eve")
        left = [scalar(engine, select(func.count()).select_from(table)) for table in tables]
        assert left == [5, 5, 5, 10]
    finally:
        for table in reversed(tables):
            table.drop(engine, checkfirst=True)
            Base.metadata.remove(table)


def data(url: URL, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = clean_env(DATABASE_URL=url.render_as_string(hide_password=False), PYTHONIOENCODING="ascii")
    return subprocess.run(
        [sys.executable, "-m", "chassis", "data", *arguments],
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_command(
    url: URL, service: httpx.Client, engine: Engine, new_database: Callable[[], URL]
) -> None:
    key = create_key(url)
    ask(service, "Grüße", headers={"Authorization": f"Bearer {key}"})
    exported = data(url, "export", id_of(key))
    assert exported.returncode == 0, exported.stderr
    assert "Grüße" in exported.stdout
    refused = data(url, "erase", id_of(key))
    assert (refused.returncode, "add --yes" in refused.stderr) == (1, True)
    assert owned(engine, id_of(key))["conversations"] == 1
    done = data(url, "erase", id_of(key), "--yes", "--with-usage")
    assert "Erased: 1 conversations" in done.stdout
    assert set(owned(engine, id_of(key)).values()) == {0}
    assert "upgrade head" in data(new_database(), "export", "x").stderr


def test_without_a_key_there_is_nothing_to_take(locked: httpx.Client) -> None:
    for method in ("GET", "DELETE"):
        check_problem(locked.request(method, "/v1/me/data"), 401)


def test_nothing_is_begun_where_all_is_kept(service: httpx.Client, engine: Engine) -> None:
    """Without a setting the service makes no such request of the database."""
    assert not RetentionSettings.from_env({}).is_on
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DELETE FROM%' AND pid <> pg_backend_pid()"
        assert connection.scalar(text(query)) == 0
