"""What the assistant's tools do, on a real PostgreSQL."""

import uuid
from functools import partial

import pytest
from pydantic_ai import DeferredToolRequests

from agents import assistant
from chassis.agents.deps import Deps
from chassis.database.engine import Sessions
from chassis.testing.agents import add_run, calling
from db.tables import chassis as tables


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("zone", "words"), [("Europe/Berlin", "CE"), ("Mars/Crater", "IANA name"), ("../../etc/passwd", "IANA")]
)
async def test_assistant_knows_the_time(sessions: Sessions, zone: str, words: str) -> None:
    model = calling("current_time", {"time_zone": zone})
    deps = Deps(sessions, uuid.uuid4(), None, "somebody")
    assert words in (await assistant.AGENT.run("now?", model=model, deps=deps)).output


@pytest.mark.anyio
async def test_assistant_finds_the_earlier_conversations_of_the_same_owner_only(sessions: Sessions) -> None:
    owner, other = uuid.uuid4().hex, uuid.uuid4().hex
    await add_run(sessions, owner, "Printers", "The blue printer is in room 7.\nAsk Zoë.")
    await add_run(sessions, owner, "Paper", {"room": "100% 9"})
    await add_run(sessions, owner, "Broken printer", None, status="failed")
    await add_run(sessions, other, "Printers", "secret of another")
    deps = await add_run(sessions, owner, "Printers now", "the same conversation")

    async def found(words: str, of: Deps = deps) -> str:
        model = calling("search_conversations", {"words": words})
        return (await assistant.AGENT.run("?", model=model, deps=of)).output

    printers = await found("PRINTER room\0Zoë")
    assert "The blue printer is in room 7.\\nAsk Zoë." in printers
    assert '"title":"Printers"' in printers.replace(": ", ":")
    for unwanted in ("secret", "the same conversation", "Broken", "Paper"):
        assert unwanted not in printers
    assert "Paper" in await found("0% 9")
    assert await found("_") == "Got "
    assert "Paper" in await found("")
    without = Deps(sessions, uuid.uuid4(), None, owner)
    assert "the same conversation" in await found("Printers now", without)


@pytest.mark.anyio
async def test_assistant_asks_before_it_changes_a_title(sessions: Sessions) -> None:
    deps = await add_run(sessions, uuid.uuid4().hex, "Old")
    run = partial(
        assistant.AGENT.run,
        model=calling("change_title", {"title": "New"}),
        deps=deps,
        output_type=[str, DeferredToolRequests],
    )

    async def title() -> str | None:
        async with sessions() as session:
            found = await session.get(tables.Conversation, deps.conversation_id)
            return found.title if found else None

    asked = await run("Call it New")
    assert isinstance(asked.output, DeferredToolRequests)
    assert await title() == "Old"
    approved = asked.output.build_results(approve_all=True)
    await run(message_history=asked.all_messages(), deferred_tool_results=approved)
    assert await title() == "New"
