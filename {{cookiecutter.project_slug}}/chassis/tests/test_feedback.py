"""What callers think of answers: said, replaced, taken back, listed, and gone with the run."""

import json
import subprocess
import sys
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, delete, func, select

from chassis.database.engine import sync_engine
from chassis.runs.tables import Run, RunFeedback
from chassis.testing.client import ask, check_problem
from chassis.testing.service import clean_env
from chassis.tests.issuer import Issuer

UP, DOWN = {"thumb": "up"}, {"thumb": "down", "words": "  It is wrong: \U0001f622 \n really.  "}
SAID = "It is wrong: \U0001f622 \n really."


def person(issuer: Issuer, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(f'feedback|{name}')}"}


def count(database: URL, run_id: str) -> int:
    engine = sync_engine(database)
    with engine.connect() as connection:
        of_it = select(func.count()).where(RunFeedback.run_id == uuid.UUID(run_id))
        found = connection.scalar(of_it)
    engine.dispose()
    return int(found or 0)


def test_it_is_given_replaced_and_taken_back(locked: httpx.Client, issuer: Issuer) -> None:
    ada = person(issuer, "ada")
    run = ask(locked, "hello", headers=ada).json()
    path, shown = f"/v1/runs/{run['run_id']}", f"/v1/conversations/{run['conversation_id']}/feedback"
    assert locked.get(path, headers=ada).json()["feedback"] is None
    assert locked.get(shown, headers=ada).json() == {"feedback": []}
    for body, words in ((DOWN, SAID), (UP, None), ({"thumb": "up", "words": " "}, None), (DOWN, SAID)):
        given = locked.post(f"{path}/feedback", json=body, headers=ada).json()
        assert (given["thumb"], given["words"]) == (body["thumb"], words)
        assert locked.get(path, headers=ada).json()["feedback"] == given
        assert locked.get(shown, headers=ada).json() == {"feedback": [given]}
    # As messages tell which run they are of, a page knows where to show it.
    messages = locked.get(f"/v1/conversations/{run['conversation_id']}", headers=ada).json()["messages"]
    assert {message["run_id"] for message in messages} == {run["run_id"]}
    for _ in range(2):
        assert locked.delete(f"{path}/feedback", headers=ada).status_code == 204
        assert locked.get(path, headers=ada).json()["feedback"] is None


def test_nobody_judges_the_answers_of_another(locked: httpx.Client, issuer: Issuer, database: URL) -> None:
    ada, bob = person(issuer, "ada"), person(issuer, "bob")
    run = ask(locked, "hello", headers=ada).json()
    path = f"/v1/runs/{run['run_id']}/feedback"
    locked.post(path, json=UP, headers=ada).raise_for_status()
    for method in ("POST", "DELETE"):
        check_problem(locked.request(method, path, json=DOWN, headers=bob), 404, "There is no run")
        check_problem(locked.request(method, path, json=DOWN), 401)
    listed = f"/v1/conversations/{run['conversation_id']}/feedback"
    check_problem(locked.get(listed, headers=bob), 404, "There is no conversation")
    assert locked.get(listed, headers=ada).json()["feedback"][0]["thumb"] == "up"
    check_problem(locked.post(f"/v1/runs/{uuid.uuid4()}/feedback", json=UP, headers=ada), 404)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"thumb": "sideways"},
        {"thumb": None},
        {"words": "no thumb"},
        {"thumb": "up", "stars": 5},
        {"thumb": "up", "words": "x" * 2001},
        {"thumb": "up", "words": "a\0b"},
    ],
    ids=lambda body: str(body)[:40],
)
def test_what_is_no_feedback(locked: httpx.Client, issuer: Issuer, body: dict[str, Any]) -> None:
    check_problem(
        locked.post(f"/v1/runs/{uuid.uuid4()}/feedback", json=body, headers=person(issuer, "ada")), 422
    )


def test_it_goes_with_the_run_and_belongs_to_its_owner(
    locked: httpx.Client, issuer: Issuer, database: URL
) -> None:
    ada = person(issuer, "leaving")
    runs = [ask(locked, "hello", headers=ada).json() for _ in range(3)]
    for run in runs:
        locked.post(f"/v1/runs/{run['run_id']}/feedback", json=DOWN, headers=ada).raise_for_status()
    locked.delete(f"/v1/conversations/{runs[0]['conversation_id']}", headers=ada).raise_for_status()
    engine = sync_engine(database)
    with engine.begin() as connection:  # as the housekeeping does
        connection.execute(delete(Run).where(Run.id == uuid.UUID(runs[1]["run_id"])))
    engine.dispose()
    assert [count(database, run["run_id"]) for run in runs] == [0, 0, 1]
    lines = [json.loads(line) for line in locked.get("/v1/me/data", headers=ada).text.splitlines()]
    [told] = [line for line in lines if line["kind"] == "run_feedback"]
    assert (told["run_id"], told["thumb"], told["words"]) == (runs[2]["run_id"], "down", SAID)
    locked.delete("/v1/me/data", headers=ada).raise_for_status()
    assert count(database, runs[2]["run_id"]) == 0


def test_the_team_lists_it(locked: httpx.Client, issuer: Issuer, database: URL) -> None:
    ada = person(issuer, "ada")
    up, down = (ask(locked, "hello", headers=ada).json()["run_id"] for _ in range(2))
    for run, body in ((up, UP), (down, DOWN)):
        locked.post(f"/v1/runs/{run}/feedback", json=body, headers=ada).raise_for_status()

    def listed(*options: str) -> str:
        env = clean_env(DATABASE_URL=database.render_as_string(hide_password=False), PYTHONUTF8="1")
        command = [sys.executable, "-m", "chassis", "feedback", *options]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    [row] = [line for line in listed("--thumb", "down").splitlines() if down in line]
    assert row.split()[2:5] == ["down", "assistant", down]
    assert row.endswith(" ".join(SAID.split()))
    assert up not in listed("--thumb", "down")
    assert len(listed("--limit", "1", "--agent", "assistant").splitlines()) == 2
    assert len(listed("--agent", "nobody").splitlines()) == 1
