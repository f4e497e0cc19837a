"""API keys: the command, who gets in, what is kept apart, and limits that hold for all processes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, Engine, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.database.engine import sync_engine
from chassis.keys import caller as callers
from chassis.keys import shared
from chassis.keys.tables import ApiKey
from chassis.runs.tables import Run
from chassis.settings import WORKSPACE, ChassisError
from chassis.testing.client import ask, check_problem, wait_for
from chassis.testing.service import clean_env
from chassis.tests.files import upload
from chassis.tests.issuer import Issuer
from chassis.tests.service import change_key, create_limited_key, id_of, keys_command
from chassis.users.accounts import Account

# What else a client could put into a body to reach a conversation, by the end of the path.
WORDS = {"role": "user", "content": "hello"}
BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/feedback": lambda _: {"thumb": "down", "words": "no"},
    "/runs": lambda conversation: {"input": "hello", "conversation_id": conversation},
    "/decisions": lambda _: {"decisions": [{"id": "call", "approve": True}]},
    "/vercel": lambda conversation: {
        "trigger": "submit-message",
        "id": conversation,
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}],
    },
    "/ag-ui": lambda conversation: {
        "threadId": conversation,
        "runId": "r",
        "state": None,
        "messages": [{"id": "m", **WORDS}],
        "tools": [],
        "context": [],
        "forwardedProps": None,
    },
    "/responses": lambda conversation: {
        "model": "assistant",
        "input": "hello",
        "conversation": conversation,
    },
}
# What even its owner isn't allowed: there is nothing to decide.
NEVER = {("delete", "/v1/responses/{response_id}"), ("post", "/v1/runs/{run_id}/decisions")}


@pytest.fixture(scope="module")
def engine(database: URL) -> Iterator[Engine]:
    engine = sync_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def command(database: URL) -> Callable[..., str]:
    """Run the command with the options, and return what it prints."""
    return partial(keys_command, database)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def line_of(listed: str, key: str) -> str:
    return next(line for line in listed.splitlines() if line.startswith(id_of(key)))


def test_key_is_shown_once_and_only_its_hash_is_stored(command: Callable[..., str], engine: Engine) -> None:
    options = ("--agents", "assistant", "--requests-per-minute", "3", "--tokens-per-day", "9")
    key = command("create", "Zoë's team", *options, "--expires-in-days", "2")
    secret = key.rpartition("_")[2]
    assert len(secret) == 64
    with engine.connect() as connection:
        row = connection.execute(select(ApiKey.__table__).where(ApiKey.id == id_of(key))).one()
    assert row.name == "Zoë's team"
    assert secret not in str(row)
    listed = line_of(command("list"), key)
    assert secret not in listed
    for words in ("Zoë's team", "assistant", "3 runs/min, 9 tokens/day", "valid"):
        assert f"  {words}" in listed
    for _ in range(2):
        assert "is revoked" in command("revoke", id_of(key))
    assert line_of(command("list"), key).endswith("  revoked")


def test_key_can_be_made_in_a_shell(database: URL, locked: httpx.Client) -> None:
    key = subprocess.run(
        [sys.executable, "-m", "chassis", "keys", "create", "shell"],
        cwd=WORKSPACE,
        env=clean_env(DATABASE_URL=database.render_as_string(hide_password=False)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    assert locked.get("/v1/agents", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("create", "x", "--agents", "assistant,nobody"), "There is no agent nobody. There are: assistant"),
        (("revoke", "nothing"), "There is no key 'nothing'. See: python -m chassis keys list"),
        (("create", "x", "--requests-per-minute", "0"), "must be a whole number from 1"),
        (("create", "x", "--cost-per-day", "nan"), "must be an amount in USD"),
        (("create", "a\nb"), "must be one line of text"),
    ],
)
def test_mistakes_are_explained(
    command: Callable[..., str], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    with pytest.raises((ChassisError, SystemExit)) as caught:
        command(*options)
    assert words in f"{caught.value} {capsys.readouterr().err}"


def test_database_that_is_not_ready_is_explained(
    new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChassisError, match=r"Run: alembic -c db/alembic\.ini upgrade head"):
        keys_command(new_database(), "list")
    monkeypatch.setattr(shared, "WAIT_SECONDS", 0)
    with pytest.raises(ChassisError, match="Nothing answers at the database's address"):
        keys_command(make_url("postgresql://u:p@127.0.0.1:1/d"), "list")


def test_only_a_whole_and_valid_key_opens(
    locked: httpx.Client, database: URL, command: Callable[..., str]
) -> None:
    key, other = command("create", "a"), command("create", "b")
    mixed = key.rpartition("_")[0] + "_" + other.rpartition("_")[2]
    for header in ("", f"Basic {key}", "Bearer", "Bearer x", f"Bearer {key}0", f"Bearer {mixed}"):
        refused = locked.get("/v1/agents", headers={"Authorization": header} if header else {})
        check_problem(refused, 401, "Authorization: Bearer KEY")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert locked.get("/v1/agents", headers=bearer(key)).status_code == 200
    change_key(database, other, expires_at=datetime.now(UTC))
    check_problem(locked.get("/v1/agents", headers=bearer(other)), 401)
    change_key(database, other, expires_at=datetime.now(UTC) + timedelta(seconds=5))
    assert locked.get("/v1/agents", headers=bearer(other)).status_code == 200
    change_key(database, key, revoked_at=datetime.now(UTC))
    # The service remembers both for a while, but none for longer than it is valid.
    wait_for(lambda: locked.get("/v1/agents", headers=bearer(other)).status_code == 401, 20)
    wait_for(lambda: locked.get("/v1/agents", headers=bearer(key)).status_code == 401, 30)


@pytest.mark.anyio
async def test_key_is_not_looked_up_for_each_request(
    sessions: async_sessionmaker[AsyncSession], command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "CACHE_SECONDS", 60)
    key = command("create", "x")
    remembering = callers.Keys(sessions)
    caller = await remembering.find(key)
    assert caller == callers.Caller(id_of(key), (Account(id_of(key)),))
    command("revoke", id_of(key))
    assert await remembering.find(key) == caller
    assert await callers.Keys(sessions).find(key) is None


def test_key_opens_only_its_agents(locked: httpx.Client, command: Callable[..., str]) -> None:
    key = command("create", "scoped", "--agents", "tickets")
    agents = locked.get("/v1/agents", headers=bearer(key)).json()["agents"]
    assert [agent["id"] for agent in agents] == ["tickets"]
    check_problem(ask(locked, "hello", headers=bearer(key)), 404, "There are: tickets.")


# Two that are not the same caller, each made of a key that may name people, another key, and an issuer.
STRANGERS: dict[str, Callable[[str, str, Issuer], tuple[dict[str, str], dict[str, str]]]] = {
    "two keys": lambda gateway, key, _: (bearer(gateway), bearer(key)),
    "two people": lambda *given: (bearer(given[2].token("one")), bearer(given[2].token("two"))),
    "two people of a key": lambda gateway, *_: (named(gateway, "three"), named(gateway, "four")),
    "a person and the key that names others": lambda gateway, *_: (named(gateway, "five"), bearer(gateway)),
    "a key and a person that it names": lambda gateway, *_: (bearer(gateway), named(gateway, "six")),
    "a person and who is called as a key": lambda _, key, issuer: (
        bearer(key),
        bearer(issuer.token(id_of(key))),
    ),
    "a person and who is called as a person is kept": lambda _, key, issuer: (
        bearer(issuer.token("seven")),
        bearer(issuer.token("user:seven")),
    ),
}


def named(key: str, subject: str) -> dict[str, str]:
    return bearer(key) | {"X-User-ID": subject}


@pytest.mark.parametrize("who", STRANGERS)
def test_what_one_wrote_no_other_can_reach(
    locked: httpx.Client, command: Callable[..., str], issuer: Issuer, who: str
) -> None:
    """By every operation of the OpenAPI document that takes the id of a conversation or a run."""
    gateway = command("create", "Ada", "--acts-for-users")
    ada, bob = STRANGERS[who](gateway, command("create", "Bob"), issuer)
    run = ask(locked, "a secret", headers={**ada, "Idempotency-Key": "1"}).json()
    conversation = run["conversation_id"]
    ids = {
        "run_id": run["run_id"],
        "response_id": f"resp_{run['run_id']}",
        "conversation_id": conversation,
        "file_id": upload(locked, b"a secret", "a.txt", headers=ada),
        "agent_id": "assistant",
    }
    paths: dict[str, dict[str, Any]] = locked.get("/openapi.json").json()["paths"]
    operations: list[tuple[str, str, Any]] = []
    for path, methods in paths.items():
        body = next((make(conversation) for end, make in BODIES.items() if path.endswith(end)), None)
        if body or any(
            name in path for name in ("{run_id}", "{response_id}", "{conversation_id}", "{file_id}")
        ):
            operations += [
                (method, path.format(**ids), {"title": "Mine"} if method == "patch" else body)
                for method in methods
            ]
    assert len(operations) >= 7
    for method, path, body in operations:
        refused = locked.request(method, path, json=body, headers=bob)
        check_problem(refused, 404)
        assert "a secret" not in refused.text
    assert locked.get("/v1/conversations", headers=bob).json()["conversations"] == []
    # What a key did for people counts for it.
    assert len(locked.get("/v1/usage", headers=bob).json()["days"]) == (
        who == "a person and the key that names others"
    )
    again = ask(locked, "a secret", headers={**bob, "Idempotency-Key": "1"}).json()
    assert again["run_id"] != run["run_id"]
    # For its owner all is as it was, and each of these requests is a good one.
    messages = locked.get(f"/v1/conversations/{conversation}", headers=ada).json()["messages"]
    assert [message["content"] for message in messages] == ["a secret", "Heard 1: a secret"]
    never = {(method, path.format(**ids)) for method, path in NEVER}
    operations = [operation for operation in operations if operation[:2] not in never]
    for method, path, body in sorted(operations, key=lambda operation: operation[0] == "delete"):
        answer = locked.request(method, path, json=body, headers=ada)
        assert answer.is_success, (method, path, answer.text)


def test_runs_a_minute_hold_for_all_processes(
    locked: httpx.Client, scripted: httpx.Client, engine: Engine, database: URL
) -> None:
    key = create_limited_key(database, 7)
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda client: ask(client, "hello", headers=bearer(key)), [locked, scripted] * 20)
        )
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 33}
    refused = next(answer for answer in answers if answer.status_code == 429)
    check_problem(refused, 429, "The key's limit is reached: 7 runs a minute.")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(Run.owner == id_of(key))) == 7
    change_key(database, key, window_started_at=datetime.now(UTC) - timedelta(minutes=1))
    assert ask(locked, "hello", headers=bearer(key)).status_code == 200


def test_tokens_a_day(locked: httpx.Client, command: Callable[..., str]) -> None:
    key = command("create", "frugal", "--tokens-per-day", "5")
    first = ask(locked, "hello", headers=bearer(key)).json()
    used = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert used > 5
    refused = ask(locked, "hello", headers=bearer(key))
    check_problem(refused, 429, "5 tokens a day (UTC)")
    assert 1 <= int(refused.headers["Retry-After"]) <= 24 * 60 * 60
    assert f"  1 runs, {used} tokens, 0.00 USD  " in line_of(command("list"), key)
    # What was stored stays readable.
    assert locked.get("/v1/conversations", headers=bearer(key)).json()["conversations"]
