"""What the agents' tools and outputs do, each on a real PostgreSQL; and that all agents are complete."""

import re
import uuid
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import delete, insert, select

from agents import assistant, incidents
from agents.demonstration import demonstration_model
from agents.deps import Deps
from agents.registry import AGENTS, FOLDER
from db import tables
from db.session import Sessions
from db.tables.incidents import Incident


@pytest.mark.parametrize("entry", AGENTS.values(), ids=AGENTS)
def test_agent_is_complete(entry: Any) -> None:
    assert isinstance(entry.agent, Agent)
    assert entry.agent.deps_type is Deps, "its tools need Deps"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", entry.id)
    assert entry.agent.name, "people read its name in lists"
    assert entry.description.endswith(".")


def test_agents_are_found_where_they_are_and_nowhere_else() -> None:
    assert {"assistant", "incidents"} <= AGENTS.keys()
    assert AGENTS["assistant"].agent is assistant.AGENT
    found = {path.stem for path in FOLDER.glob("*.py")} | {path.parent.name for path in FOLDER.glob("*/*.py")}
    assert AGENTS.keys() < found
    assert AGENTS.keys().isdisjoint({"deps", "demonstration", "models", "registry", "runs", "store"})


async def add_run(
    sessions: Sessions, owner: str, title: str = "", output: Any = None, status: str = "succeeded"
) -> Deps:
    """A run of the owner's in a conversation of its own, as its tools see it."""
    run, conversation = uuid.uuid4(), Conversation().conversation_id
    async with sessions.begin() as session:
        await session.execute(
            insert(tables.Conversation).values(id=conversation, scope=owner, title=title, revision="1")
        )
        await session.execute(
            insert(tables.Run).values(
                id=run,
                conversation_id=conversation,
                agent_id="assistant",
                model="m",
                owner=owner,
                output=output,
                status=status,
            )
        )
    return Deps(sessions, run, conversation, owner)


def calling(tool: str, arguments: dict[str, Any]) -> FunctionModel:
    """A model that calls one tool and then says what it got."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        part = messages[-1].parts[-1]
        if isinstance(part, ToolReturnPart):
            return ModelResponse(parts=[TextPart(f"Got {part.model_response_str()}")])
        return ModelResponse(parts=[ToolCallPart(tool, arguments)])

    return FunctionModel(answer)


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
async def test_incident_becomes_a_row_and_goes_with_its_conversation(sessions: Sessions) -> None:
    deps = await add_run(sessions, "somebody")
    report = {
        "title": "No\0mail",
        "category": "outage",
        "severity": "high",
        "summary": "Since 9.",
        "request": "Hurry",
    }
    names: list[str] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        names.extend(tool.name for tool in info.output_tools)
        wrong = {"severity": "awful"} if len(names) == 1 else {}
        return ModelResponse(parts=[ToolCallPart(names[0], report | wrong)])

    output = (await incidents.AGENT.run("mail!", model=FunctionModel(answer), deps=deps)).output
    assert len(names) == 2, "what is no severity must be asked for again"
    assert output.model_dump(mode="json", exclude={"id"}) == {**report, "title": "No mail", "affected": None}
    async with sessions() as session:
        row = (await session.scalars(select(Incident).where(Incident.run_id == deps.run_id))).one()
        assert (row.id, row.owner, row.title, row.severity) == (output.id, "somebody", "No mail", "high")
        await session.execute(
            delete(tables.Conversation).where(tables.Conversation.id == deps.conversation_id)
        )
        assert (await session.scalars(select(Incident.id).where(Incident.id == output.id))).all() == []


@pytest.mark.anyio
@pytest.mark.parametrize("entry", AGENTS.values(), ids=AGENTS)
async def test_demonstration_answers_for_every_agent(sessions: Sessions, entry: Any) -> None:
    deps = await add_run(sessions, "somebody")
    model = demonstration_model("SOME_API_KEY")
    result = await entry.agent.run("The coffee machine is on fire!", model=model, deps=deps)
    assert "demonstration" in str(result.output).lower()
