"""The conversation store: it must do what pydantic-ai's own store in memory does, and hold under load."""

import asyncio
import random
from typing import Any

import pytest
from pydantic_ai import BinaryContent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage
from sqlalchemy import func, select

from chassis.conversations import tables
from chassis.conversations.store import DatabaseConversationStore
from chassis.database.engine import Sessions
from chassis.database.jsonb import restored, storable

pytestmark = pytest.mark.anyio


def said(words: str) -> ModelMessage:
    return ModelRequest(parts=[UserPromptPart(words)])


def words_of(messages: list[ModelMessage]) -> list[Any]:
    return [
        part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)
    ]


@pytest.fixture
def store(sessions: Sessions) -> DatabaseConversationStore:
    return DatabaseConversationStore(sessions)


async def count_entries(sessions: Sessions) -> int:
    async with sessions() as session:
        return (await session.scalar(select(func.count()).select_from(tables.ConversationEntry))) or 0


@pytest.mark.parametrize("seed", range(4))
async def test_same_operations_give_the_same_as_in_memory(sessions: Sessions, seed: int) -> None:
    """Random saves, rewrites, branches, forks and deletes, on both stores, compared after each."""
    memory, database = InMemoryConversationStore(), DatabaseConversationStore(sessions)
    scope = f"seed {seed}"
    before = await count_entries(sessions)
    # The same stream of choices for each, as their entries have ids of their own.
    choices = [random.Random(seed), random.Random(seed)]  # noqa: S311
    for step in range(25):
        expected = await operate(memory, choices[0], scope, step)
        found = await operate(database, choices[1], scope, step)
        assert found == expected, f"step {step}"
        assert await state(database, scope) == await state(memory, scope), f"step {step}"
        assert await count_entries(sessions) - before == len(memory._entries), f"step {step}"
    for record in await memory.list_conversations(scope=scope):
        await database.delete(record.conversation_id, scope=scope)
    assert await count_entries(sessions) == before


async def operate(store: ConversationStore, choice: random.Random, scope: str, step: int) -> str:
    """Do one thing, chosen at random, and tell how it went."""
    names = sorted(record.conversation_id for record in await store.list_conversations(scope=scope))
    new = f"{scope} {step}"
    action = choice.choice(
        ["save", "save", "append", "append", "rewrite", "branch", "fork", "delete", "wrong"]
    )
    name = choice.choice(names) if names else new
    at, cut = choice.randrange(4), choice.randrange(1, 4)
    try:
        if action == "save" or not names:
            conversation = Conversation(
                conversation_id=new,
                messages=[said(f"{new} {n}") for n in range(at)],
                usage=RunUsage(requests=at),
            )
            await store.save(conversation, scope=scope)
        elif action == "append":
            loaded = await store.load(name, limit=choice.choice([None, 0, 2]))
            assert loaded is not None
            loaded.messages += [said(f"{new} more"), said(f"{new} still more")]
            loaded.deferred_tool_requests = DeferredToolRequests(
                calls=[ToolCallPart("wait", {"step": step}, tool_call_id="1")]
            )
            await store.save(loaded)
        elif action == "rewrite":
            loaded = await store.load(name)
            assert loaded is not None
            loaded.messages[-cut:] = [said(f"{new} instead")]
            await store.save(loaded)
        elif action == "branch":
            loaded = await store.load(name)
            assert loaded is not None
            await store.branch(name, at=at, expected_revision=loaded.revision)
        elif action == "fork":
            await store.fork(name, at=choice.choice([None, at]), new_conversation_id=new)
        elif action == "delete":
            await store.delete(name, scope=choice.choice([scope, scope, "another's"]))
        else:
            await store.save(Conversation(conversation_id=name, messages=[said("never")]), scope=scope)
    except UserError as error:
        return f"{action}: {type(error).__name__}: {error}"
    return action


async def state(store: ConversationStore, scope: str) -> list[Any]:
    """All that can be told of a scope, with messages in place of the ids of entries."""

    async def history(tip: str | None) -> list[Any]:
        return words_of([entry.message for entry in await store.read_history(tip)])

    return [
        {
            "id": record.conversation_id,
            "history": await history(record.head_id),
            "last": await history(record.head_id)
            and words_of([(await store.read_entry(str(record.head_id))).message]),
            "window": words_of(
                [e.message for e in await store.load_entries(record.conversation_id, limit=2) or []]
            ),
            "branches": [await history(tip) for tip in record.branches],
            "forked_from": record.forked_from,
            "forked_at": await history(record.forked_at)
            if record.forked_at in await known(store, record)
            else None,
            "usage": record.usage,
            "deferred": record.deferred_tool_requests,
            "scope": record.scope,
        }
        for record in await store.list_conversations(scope=scope)
    ]


async def known(store: ConversationStore, record: Any) -> set[str]:
    """The entries that a conversation reaches; the one it was forked at may be gone."""
    return {entry.id for tip in (record.head_id, *record.branches) for entry in await store.read_history(tip)}


async def test_what_a_message_holds_comes_back(store: DatabaseConversationStore) -> None:
    messages: list[ModelMessage] = [
        ModelRequest(
            parts=[UserPromptPart(["see", BinaryContent(b"\x00\xff", media_type="application/pdf")])]
        ),
        ModelResponse(
            parts=[
                TextPart("Zoë \U0001f600 \0 \x1a0000"),
                ToolCallPart("look", {"a\0": ["\0"]}, tool_call_id="1"),
            ]
        ),
        ModelRequest(parts=[ToolReturnPart("look", {"nothing": None, "n": 1.5}, tool_call_id="1")]),
    ]
    conversation = Conversation(
        messages=list(messages),
        usage=RunUsage(requests=2, input_tokens=7, details={"x": 1}),
        deferred_tool_requests=DeferredToolRequests(
            calls=[ToolCallPart("wait", {"q": "\0"}, tool_call_id="2")]
        ),
    )
    await store.save(conversation)
    loaded = await store.load(conversation.conversation_id)
    assert loaded == conversation
    # Nothing is new, so a second save stores nothing and leaves no branch.
    loaded.new_message_index = None
    assert await store.save(loaded) == []


@pytest.mark.parametrize(
    "value", ["", "plain", "\0", "\x1a", "\x1a0000", "\0\x1a\0", {"k\0": ["\0", 1, None]}]
)
def test_storable_can_be_undone(value: Any) -> None:
    assert "\0" not in repr(storable(value)).replace("\\x00", "\0")
    assert restored(storable(value)) == value


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    assert storable("a\ud83d") == "a\ufffd"


async def test_entry_that_is_not_there(store: DatabaseConversationStore) -> None:
    with pytest.raises(LookupError):
        await store.read_entry("nothing")
    with pytest.raises(LookupError):
        await store.read_history("nothing")
    assert await store.read_history(None) == await store.read_history("nothing", limit=0) == []


async def test_of_many_writers_exactly_one_wins(store: DatabaseConversationStore) -> None:
    conversation = Conversation(messages=[said("start")])
    await store.save(conversation)
    loaded = [await store.load(conversation.conversation_id) for _ in range(20)]

    async def write(number: int, copy: Conversation | None) -> bool:
        assert copy is not None
        copy.messages.append(said(f"writer {number}"))
        try:
            await store.save(copy)
        except ConversationConflict:
            return False
        return True

    won = await asyncio.gather(*(write(number, copy) for number, copy in enumerate(loaded)))
    assert won.count(True) == 1
    final = await store.load(conversation.conversation_id)
    assert final is not None
    assert words_of(final.messages) == ["start", f"writer {won.index(True)}"]


async def test_of_many_creators_exactly_one_wins(
    store: DatabaseConversationStore, sessions: Sessions
) -> None:
    before = await count_entries(sessions)
    made = [Conversation(conversation_id="same", messages=[said(str(number))]) for number in range(20)]
    results = await asyncio.gather(*(store.save(each) for each in made), return_exceptions=True)
    lost = [result for result in results if isinstance(result, BaseException)]
    assert len(lost) == 19
    assert {type(error) for error in lost} == {ConversationConflict}
    # The losers left nothing behind.
    assert await count_entries(sessions) == before + 1
    await store.delete("same")


async def test_forks_saves_and_deletes_at_once_leave_nothing_broken(
    store: DatabaseConversationStore, sessions: Sessions
) -> None:
    """Whatever wins, each conversation that is left can be read, and no entry is left that none reaches."""
    before = await count_entries(sessions)
    for round_ in range(6):
        origin = Conversation(messages=[said(str(number)) for number in range(5)])
        await store.save(origin)
        copies = [await store.load(origin.conversation_id) for _ in range(3)]
        for copy in copies:
            assert copy is not None
            copy.messages.append(said("more"))
        forks = [f"fork {round_} {number}" for number in range(6)]
        results = await asyncio.gather(
            *(
                store.fork(origin.conversation_id, at=n, new_conversation_id=fork)
                for n, fork in enumerate(forks, 0)
            ),
            *(store.save(copy) for copy in copies if copy),
            store.delete(origin.conversation_id),
            return_exceptions=True,
        )
        unexpected = [r for r in results if isinstance(r, BaseException) and not isinstance(r, UserError)]
        assert unexpected == []
        alive = [name for name in [*forks, origin.conversation_id] if await store.load(name) is not None]
        await asyncio.gather(*(store.delete(name) for name in alive))
        assert await count_entries(sessions) == before
