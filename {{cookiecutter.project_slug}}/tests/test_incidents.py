"""Incidents: from free words to a row, a typed answer, and the list of what was recorded."""

import json
import uuid
from typing import Any

import httpx
import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import URL, delete, select

from agents import incidents
from chassis.database.engine import Sessions
from chassis.testing.agents import add_run
from chassis.testing.service import create_key
from db.tables import chassis as tables
from db.tables.incidents import Incident

RUNS = "/v1/agents/incidents/runs"
LIST = "/v1/incidents"


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


def test_incidents_are_recorded_and_listed_for_their_owner_only(client: httpx.Client, database: URL) -> None:
    mine, others = ({"Authorization": f"Bearer {create_key(database)}"} for _ in range(2))

    def page(headers: dict[str, str] = mine, **query: Any) -> dict[str, Any]:
        response = client.get(LIST, params=query, headers=headers)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def report(title: str) -> dict[str, Any]:
        record = {"title": title, "category": "outage", "severity": "low", "summary": "Since 9."}
        words = f"call final_result {json.dumps(record)}"
        answer: dict[str, Any] = client.post(RUNS, json={"input": words}, headers=mine).json()
        return answer

    answers = [report(f"The mail server {n} is down") for n in range(3)]
    assert answers[0]["output"]["title"] == "The mail server 0 is down"
    assert answers[0]["output"]["severity"] == "low"

    first = page(limit=2)
    rest = page(limit=2, cursor=first["next_cursor"])
    assert rest["next_cursor"] is None
    listed = first["incidents"] + rest["incidents"]
    assert [row["run_id"] for row in listed] == [answer["run_id"] for answer in reversed(answers)]
    assert answers[2]["output"].items() <= listed[0].items()
    assert page(others) == {"incidents": [], "next_cursor": None}

    client.delete(f"/v1/conversations/{answers[0]['conversation_id']}", headers=mine).raise_for_status()
    assert len(page()["incidents"]) == 2
    assert client.get(LIST, params={"cursor": str(uuid.uuid4())}, headers=mine).status_code == 422
