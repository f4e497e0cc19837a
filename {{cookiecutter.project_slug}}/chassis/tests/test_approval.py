"""Calls of tools that a person must approve: the run waits, and a decision goes on with it, anywhere and once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic_ai import Agent, DeferredToolRequests, Tool
from sqlalchemy import URL

from chassis.agents.approval import OutputTypeError, output_type_of_runs
from chassis.testing.client import SSE, check_problem, run_rows, wait_for
from chassis.testing.client import events as sse
from chassis.testing.service import Server
from chassis.tests.service import create_key, create_limited_key, service
from chassis.tests.test_vercel import chunks, message, submit

RUNS = "/v1/agents/clerk/runs"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where each payment that was really made is a line."""
    path = tmp_path / "ledger"
    path.touch()
    return path


@pytest.fixture(scope="session")
def replicas(servers: list[Server]) -> Iterator[list[httpx.Client]]:
    clients = [httpx.Client(base_url=server.address, timeout=30) for server in servers]
    yield clients
    for client in clients:
        client.close()


def order(ledger: Path, amount: int = 5, verb: str = "call") -> str:
    return f"{verb} pay {json.dumps({'amount': amount, 'ledger': str(ledger)})}"


def waiting(client: httpx.Client, ledger: Path, verb: str = "call", **options: Any) -> dict[str, Any]:
    """A run that waits for a word on one payment of 5."""
    run: dict[str, Any] = client.post(RUNS, json={"input": order(ledger, verb=verb)}, **options).json()
    assert run["status"] == "waiting", run
    return run


def decide(client: httpx.Client, run: dict[str, Any], approve: bool = True, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    decision = {"id": run["calls"][0]["id"], "approve": approve, **more}
    return client.post(f"/v1/runs/{run['run_id']}/decisions", json={"decisions": [decision]}, headers=headers)


def paid(ledger: Path) -> list[int]:
    return [int(line) for line in ledger.read_text().split()]


# What is asked, and what becomes of it


def test_a_run_waits_and_goes_on_in_another_process(
    replicas: list[httpx.Client], ledger: Path, database: URL
) -> None:
    here, there = replicas
    run = waiting(here, ledger)
    arguments = {"amount": 5, "ledger": str(ledger)}
    assert run["output"] is None
    assert [(call["name"], call["arguments"]) for call in run["calls"]] == [("pay", arguments)]
    assert there.get(f"/v1/runs/{run['run_id']}").json() == run | {"feedback": None}
    conversation = there.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert conversation["waiting_run_id"] == run["run_id"]
    assert [message["content"] for message in conversation["messages"] if message["role"] == "tool"] == []
    assert paid(ledger) == []
    done = decide(there, run).json()
    assert (done["status"], done["output"]) == ("succeeded", "The tool said: Paid 5.")
    assert paid(ledger) == [5]
    before = here.get(f"/v1/runs/{run['run_id']}").json()
    assert (before["status"], before["continued_by"]) == ("continued", done["run_id"])
    assert before["calls"][0]["decision"] == {"approve": True}
    conversation = here.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert "waiting_run_id" not in conversation
    assert conversation["messages"][-1]["content"] == "The tool said: Paid 5."
    # What the second run has used is counted once.
    assert conversation["usage"]["requests"] == 2
    rows = run_rows(database, run["conversation_id"])
    assert [(row.status, row.usage["requests"]) for row in rows] == [("continued", 1), ("succeeded", 1)]


def test_other_arguments_and_a_denial(replicas: list[httpx.Client], ledger: Path) -> None:
    here, _ = replicas
    changed = decide(here, waiting(here, ledger), arguments={"amount": 7, "ledger": str(ledger)}).json()
    assert changed["output"] == "The tool said: Paid 7."
    denied = decide(here, waiting(here, ledger), approve=False, reason="Too dear.").json()
    assert denied["output"] == "The tool said: Too dear."
    assert paid(ledger) == [7]


def test_events(replicas: list[httpx.Client], ledger: Path) -> None:
    here, there = replicas
    asked = sse(here.post(RUNS, json={"input": order(ledger)}, headers=SSE))
    assert [name for name, _ in asked] == ["run", "tool_call", "waiting"]
    run = asked[-1][1]
    assert run["status"] == "waiting"
    # Whoever lost the connection gets the same from any process.
    again = wait_for(lambda: sse(there.get(f"/v1/runs/{run['run_id']}/events")))
    assert again[-1] == ("waiting", run)
    told = sse(decide(there, run, headers=SSE))
    assert [name for name, _ in told if name != "text"] == ["run", "tool_call", "tool_result", "done"]
    assert told[-1][1]["output"] == "The tool said: Paid 5."


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        ([{"id": "other", "approve": True}], "asks for no approval of 'other'"),
        ([], "body/decisions: "),
        ([{"id": "ID", "approve": "yes"}], "body/decisions/0/approve"),
        ([{"id": "ID", "approve": True, "reason": "x"}], "a reason goes with approve: false"),
        ([{"id": "ID", "approve": False, "arguments": {}}], "arguments go with approve: true"),
        ([{"id": "ID", "approve": True}, {"id": "ID", "approve": False}], "more than one decision"),
        (
            [{"id": "ID", "approve": True, "arguments": {"amount": "much", "ledger": "x"}}],
            "amount: Input should",
        ),
        ([{"id": "ID", "approve": True, "arguments": {"amount": 1}}], "'pay': ledger: Field required"),
        (
            [{"id": "ID", "approve": True, "arguments": {"amount": 1, "ledger": "x", "y": 1}}],
            "y: Extra inputs",
        ),
    ],
    ids=str,
)
def test_a_decision_that_does_not_fit(
    replicas: list[httpx.Client], ledger: Path, decisions: list[dict[str, Any]], words: str
) -> None:
    here, _ = replicas
    run = waiting(here, ledger)
    body = json.dumps({"decisions": decisions}).replace('"ID"', json.dumps(run["calls"][0]["id"]))
    refused = here.post(
        f"/v1/runs/{run['run_id']}/decisions", content=body, headers={"Content-Type": "application/json"}
    )
    check_problem(refused, 422, words)
    # It waits all the same.
    assert decide(here, run).json()["status"] == "succeeded"
    assert paid(ledger) == [5]


def test_each_call_has_a_decision_of_its_own(replicas: list[httpx.Client], ledger: Path) -> None:
    here, there = replicas
    run = waiting(here, ledger, verb="twice")
    first, second = (call["id"] for call in run["calls"])
    check_problem(decide(there, run), 422, f"A decision on '{second}' is missing")
    assert paid(ledger) == []
    words = [{"id": second, "approve": True}, {"id": first, "approve": False}]
    done = there.post(f"/v1/runs/{run['run_id']}/decisions", json={"decisions": words}).json()
    assert done["status"] == "succeeded"
    assert paid(ledger) == [5]
    stored = here.get(f"/v1/conversations/{run['conversation_id']}").json()["messages"]
    told = {message["tool_call_id"]: message["content"] for message in stored if message["role"] == "tool"}
    assert told == {first: "The tool call was denied.", second: "Paid 5."}


def test_a_decision_counts_against_the_limits(locked: httpx.Client, database: URL, ledger: Path) -> None:
    key = create_limited_key(database, 1)
    shown = {"Authorization": f"Bearer {key}"}
    run = waiting(locked, ledger, headers=shown)
    check_problem(decide(locked, run, headers=shown), 429, "The key's limit is reached")
    # Nothing was done, and it waits all the same.
    assert locked.get(f"/v1/runs/{run['run_id']}", headers=shown).json() == run | {"feedback": None}
    assert paid(ledger) == []


def test_one_of_many_goes_on(replicas: list[httpx.Client], ledger: Path) -> None:
    run = waiting(replicas[0], ledger)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda client: decide(client, run), replicas * 3))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert paid(ledger) == [5]
    done = next(answer for answer in answers if answer.status_code == 200).json()
    check_problem(decide(replicas[0], run, approve=False), 409, f"the run {done['run_id']} goes on with it")


def test_a_decision_that_is_sent_twice(replicas: list[httpx.Client], ledger: Path) -> None:
    here, there = replicas
    asked = {"Idempotency-Key": uuid4().hex}
    run = waiting(here, ledger, headers=asked)
    # So is the question: it waits, and isn't asked once more.
    assert there.post(RUNS, json={"input": order(ledger)}, headers=asked).json() == run
    key = {"Idempotency-Key": uuid4().hex}
    done = decide(here, run, headers=key).json()
    assert decide(there, run, headers=key).json() == done
    check_problem(decide(there, run, approve=False, headers=key), 422, "another request")
    assert (
        there.post(RUNS, json={"input": order(ledger)}, headers=asked).json()["continued_by"]
        == done["run_id"]
    )
    assert paid(ledger) == [5]


def test_a_new_question_leaves_it_undone(
    replicas: list[httpx.Client], ledger: Path, provider: httpx.Client
) -> None:
    here, there = replicas
    run = waiting(here, ledger)
    place = {"conversation_id": run["conversation_id"]}
    # One that fails leaves all as it was.
    assert there.post(RUNS, json={"input": "fail request", **place}).status_code == 400
    assert here.get(f"/v1/runs/{run['run_id']}").json()["status"] == "waiting"
    assert there.post(RUNS, json={"input": "Never mind", **place}).json()["output"] == "Heard 2: Never mind"
    told = [item for item in provider.get("/last").json()["messages"] if item["role"] == "tool"]
    assert ["was not carried out" in item["content"] for item in told] == [True]
    check_problem(decide(here, run), 409, "The conversation went on without a decision.")
    assert here.get(f"/v1/runs/{run['run_id']}").json()["status"] == "cancelled"
    assert paid(ledger) == []


def test_what_was_approved_is_done_once_even_if_the_answer_fails(
    replicas: list[httpx.Client], ledger: Path
) -> None:
    here, there = replicas
    run = waiting(here, ledger, verb="break")
    failed = decide(here, run)
    check_problem(failed, 502)
    assert paid(ledger) == [5]
    check_problem(decide(there, run), 409, "decided already")
    # What the tool has done is known to whoever goes on.
    conversation = there.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert conversation["messages"][-1]["content"] == "Paid 5."
    on = {"input": "Well?", "conversation_id": run["conversation_id"]}
    assert there.post(RUNS, json=on).json()["output"] == "Heard 2: Well?"
    assert paid(ledger) == [5]


def test_the_same_by_another_protocol(replicas: list[httpx.Client], ledger: Path) -> None:
    here, there = replicas
    run = waiting(here, ledger, verb="break")
    answer = submit(run["conversation_id"], approval_of(run))
    told = chunks(there.post("/v1/agents/clerk/vercel", json=answer))
    assert told[-1]["type"] == "error" or "error" in {chunk["type"] for chunk in told}
    conversation = here.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert conversation["messages"][-1]["content"] == "Paid 5."
    check_problem(decide(here, run), 409, "decided already")
    # The client sends what was decided along for ever.
    on = submit(run["conversation_id"], approval_of(run), message("Well?"))
    told = chunks(here.post("/v1/agents/clerk/vercel", json=on))
    assert "".join(chunk["delta"] for chunk in told if chunk["type"] == "text-delta") == "Heard 2: Well?"
    assert paid(ledger) == [5]


def test_it_is_stopped_after_the_decision(replicas: list[httpx.Client], ledger: Path, database: URL) -> None:
    here, there = replicas
    run = waiting(here, ledger, verb="stall")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(decide, there, run)
        wait_for(lambda: paid(ledger), seconds=30)
        on = there.get(f"/v1/runs/{run['run_id']}").json()["continued_by"]
        here.post(f"/v1/runs/{on}/cancel").raise_for_status()
        check_problem(answer.result(), 409, "cancelled")
    conversation = here.get(f"/v1/conversations/{run['conversation_id']}").json()
    assert conversation["messages"][-1]["content"] == "Paid 5."
    assert [row.status for row in run_rows(database, run["conversation_id"])] == ["continued", "cancelled"]


def test_the_process_is_killed_after_the_decision(
    database: URL, logs: Path, model: dict[str, str], replicas: list[httpx.Client], ledger: Path
) -> None:
    here, _ = replicas
    run = waiting(here, ledger, verb="stall")
    with service(logs / "killed", database, **model) as doomed, ThreadPoolExecutor(1) as pool:
        client = httpx.Client(base_url=doomed.address, timeout=30)
        lost = pool.submit(decide, client, run)
        wait_for(lambda: paid(ledger), seconds=30)
        doomed.process.kill()
        with pytest.raises(httpx.HTTPError):
            lost.result()
        client.close()
    check_problem(decide(here, run), 409, "decided already")
    assert paid(ledger) == [5]


# Whose it is


def test_nobody_decides_for_another(locked: httpx.Client, database: URL, ledger: Path) -> None:
    ada, bob = ({"Authorization": f"Bearer {create_key(database, name)}"} for name in ("Ada", "Bob"))
    run = waiting(locked, ledger, headers=ada)
    check_problem(decide(locked, run, headers=bob), 404)
    check_problem(locked.get(f"/v1/runs/{run['run_id']}", headers=bob), 404)
    decision = approval_of(run)
    other = locked.post("/v1/agents/clerk/vercel", json=submit(run["conversation_id"], decision), headers=bob)
    check_problem(other, 409, "waits for no decision")
    assert paid(ledger) == []
    assert decide(locked, run, headers=ada).json()["status"] == "succeeded"


# Other interfaces


def approval_of(run: dict[str, Any], approved: bool = True, **more: Any) -> dict[str, Any]:
    """The message of Vercel's client that holds the answer."""
    [call] = run["calls"]
    part = {
        "type": f"tool-{call['name']}",
        "toolCallId": call["id"],
        "state": "approval-responded",
        "input": call["arguments"],
        "approval": {"id": call["id"], "approved": approved, **more},
    }
    return {"id": uuid4().hex, "role": "assistant", "parts": [part]}


@pytest.mark.parametrize(("approved", "outcome"), [(True, [5]), (False, [])])
def test_vercel(replicas: list[httpx.Client], ledger: Path, approved: bool, outcome: list[int]) -> None:
    here, there = replicas
    chat, question = uuid4().hex, message(order(ledger))
    asked = chunks(here.post("/v1/agents/clerk/vercel", json=submit(chat, question)))
    [request] = [chunk for chunk in asked if chunk["type"] == "tool-approval-request"]
    run_id = there.get(f"/v1/conversations/{chat}").json()["waiting_run_id"]
    run = there.get(f"/v1/runs/{run_id}").json()
    assert request["toolCallId"] == run["calls"][0]["id"]
    answer = submit(chat, question, approval_of(run, approved, **({} if approved else {"reason": "No."})))
    told = chunks(there.post("/v1/agents/clerk/vercel", json=answer))
    text = "".join(chunk["delta"] for chunk in told if chunk["type"] == "text-delta")
    assert text == ("The tool said: Paid 5." if approved else "The tool said: No.")
    check_problem(here.post("/v1/agents/clerk/vercel", json=answer), 409, "waits for no decision")
    assert here.get(f"/v1/runs/{run_id}").json()["status"] == "continued"
    assert paid(ledger) == outcome


def test_vercel_goes_on_with_a_question(replicas: list[httpx.Client], ledger: Path) -> None:
    here, _ = replicas
    chat = uuid4().hex
    here.post("/v1/agents/clerk/vercel", json=submit(chat, message(order(ledger))))
    run = here.get(f"/v1/runs/{here.get(f'/v1/conversations/{chat}').json()['waiting_run_id']}").json()
    told = chunks(here.post("/v1/agents/clerk/vercel", json=submit(chat, message("Never mind"))))
    assert "".join(chunk.get("delta", "") for chunk in told) == "Heard 2: Never mind"
    check_problem(decide(here, run), 409, "went on without")


# What an author writes


def test_an_agent_with_an_output_validator_must_name_it() -> None:
    def check(value: Any) -> Any:
        return value

    agent: Agent[Any, Any] = Agent(output_type=int, tools=[Tool(check, requires_approval=True, name="x")])
    assert output_type_of_runs("a", agent) == [int, DeferredToolRequests]
    agent.output_validator(check)
    with pytest.raises(OutputTypeError, match="'a' has an output validator"):
        output_type_of_runs("a", agent)
    named: Agent[Any, Any] = Agent(output_type=[int, DeferredToolRequests])
    named.output_validator(check)
    assert output_type_of_runs("a", named) is None
    assert output_type_of_runs("a", Agent(output_type=int)) is None
