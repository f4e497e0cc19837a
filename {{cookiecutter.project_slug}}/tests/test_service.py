"""What holds for every service: it starts, its agents are complete, its tables and its revisions agree."""

import re
from typing import Any

import httpx
import pytest
from alembic import command
from pydantic_ai import Agent
from sqlalchemy import URL

import agents
from chassis.agents.demonstration import demonstration_model
from chassis.agents.deps import Deps
from chassis.agents.models import CREDENTIALS, resolve_model
from chassis.agents.registry import find_agents
from chassis.database.engine import Sessions, sync_engine
from chassis.settings import RuntimeEnv
from chassis.testing.agents import add_run
from chassis.testing.service import alembic_config_for

AGENTS = find_agents(agents)


def test_it_starts_and_serves_its_agents(client: httpx.Client) -> None:
    assert client.get("/ready").json()["status"] == "ok"
    assert {agent["id"] for agent in client.get("/v1/agents").json()["agents"]} == AGENTS.keys()


def test_tables_and_revisions_agree(database: URL) -> None:
    engine = sync_engine(database)
    with engine.connect() as connection:
        command.check(alembic_config_for(connection))
    engine.dispose()


def test_the_default_model_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = CREDENTIALS[agents.DEFAULT_MODEL.partition(":")[0]][0]
    monkeypatch.setenv(variable, "some-key")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")  # which AWS's models need
    model = resolve_model(agents.DEFAULT_MODEL, RuntimeEnv.PRD, {variable: "some-key"})
    assert model.model_name == agents.DEFAULT_MODEL.partition(":")[2]


@pytest.mark.parametrize("entry", AGENTS.values(), ids=AGENTS)
def test_agent_is_complete(entry: Any) -> None:
    assert isinstance(entry.agent, Agent)
    assert entry.agent.deps_type is Deps, "its tools need Deps"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", entry.id)
    assert entry.agent.name, "people read its name in lists"
    assert entry.description.endswith(".")


@pytest.mark.anyio
@pytest.mark.parametrize("entry", AGENTS.values(), ids=AGENTS)
async def test_demonstration_answers_for_every_agent(sessions: Sessions, entry: Any) -> None:
    deps = await add_run(sessions, "somebody")
    model = demonstration_model("SOME_API_KEY")
    result = await entry.agent.run("The coffee machine is on fire!", model=model, deps=deps)
    assert "demonstration" in str(result.output).lower()
