"""Incidents over HTTP: from free words to a typed answer, and the list of what was recorded."""

import uuid
from typing import Any

import httpx
from sqlalchemy import URL

from tests.conftest import create_key

RUNS = "/v1/agents/incidents/runs"
LIST = "/v1/incidents"


def test_incidents_are_recorded_and_listed_for_their_owner_only(dev: httpx.Client, database: URL) -> None:
    mine, others = ({"Authorization": f"Bearer {create_key(database)}"} for _ in range(2))

    def page(headers: dict[str, str] = mine, **query: Any) -> dict[str, Any]:
        response = dev.get(LIST, params=query, headers=headers)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    answers = [
        dev.post(RUNS, json={"input": f"The mail server {n} is down"}, headers=mine).json() for n in range(3)
    ]
    assert answers[0]["output"]["title"] == "Demonstration: The mail server 0 is down"
    assert answers[0]["output"]["severity"] == "low"

    first = page(limit=2)
    rest = page(limit=2, cursor=first["next_cursor"])
    assert rest["next_cursor"] is None
    listed = first["incidents"] + rest["incidents"]
    assert [row["run_id"] for row in listed] == [answer["run_id"] for answer in reversed(answers)]
    assert answers[2]["output"].items() <= listed[0].items()
    assert page(others) == {"incidents": [], "next_cursor": None}

    dev.delete(f"/v1/conversations/{answers[0]['conversation_id']}", headers=mine).raise_for_status()
    assert len(page()["incidents"]) == 2
    assert dev.get(LIST, params={"cursor": str(uuid.uuid4())}, headers=mine).status_code == 422
