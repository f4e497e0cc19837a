"""The model without a key: it answers for any agent, says what it is, and is never there in production."""

import itertools
import json
from enum import StrEnum
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent, AgentRunResultEvent, ModelRetry
from pydantic_ai.models import Model
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from chassis.agents.demonstration import SECONDS_A_WORD, demonstration_model
from chassis.agents.models import CREDENTIALS, NoModelError, resolve_model
from chassis.agents.registry import find_agents
from chassis.settings import RuntimeEnv
from chassis.tests import agents

MODEL = demonstration_model("SOME_API_KEY")
DEFAULT_MODEL = "openai:gpt-6.1-terra"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    weight: float = Field(gt=1)


class Order(BaseModel):
    title: str = Field(max_length=20)
    colour: Colour
    count: int = Field(ge=3)
    notes: list[str] = Field(min_length=1)
    parts: list[Part] = Field(min_length=1)
    remark: str | None = None


async def run(agent: Agent[None, Any], words: str, **options: Any) -> Any:
    """The result, which must be the same when it is streamed."""
    result = await agent.run(words, model=MODEL, **options)
    async with agent.run_stream_events(words, model=MODEL, **options) as events:
        *_, last = [event async for event in events]
    assert isinstance(last, AgentRunResultEvent)
    assert last.result.output == result.output
    return result


def called(result: Any) -> list[tuple[str, Any]]:
    return [
        (part.tool_name, part.args_as_dict())
        for message in result.new_messages()
        for part in message.parts
        if part.part_kind == "tool-call"
    ]


@pytest.mark.anyio
async def test_says_what_it_is_and_what_it_heard() -> None:
    agent = Agent()
    first = await run(agent, "my name is Zoë")
    assert first.output.startswith("This is a demonstration: no model was asked. You said: my name is Zoë")
    assert "Set SOME_API_KEY" in first.output
    second = await run(agent, "and now?", message_history=first.all_messages())
    assert "Before that you said: my name is Zoë" in second.output


@pytest.mark.anyio
async def test_calls_the_tool_that_the_words_name() -> None:
    agent = Agent()

    @agent.tool_plain
    def lunch_menu(day: str, guests: int = 1) -> str:
        if "moon" in day:
            raise ModelRetry("Not there.")
        return f"soup on {day}"

    menu = await run(agent, "The menu of Monday?")
    assert called(menu) == [("lunch_menu", {"day": "The menu of Monday?"})]
    assert "The tool lunch_menu says: soup on The menu of Monday?" in menu.output
    assert called(await run(agent, "Anything else on Monday?")) == []
    assert "Not there." in (await run(agent, "Menus on the moon?")).output


@pytest.mark.anyio
async def test_searches_documents_for_every_question_and_names_the_sources() -> None:
    agent = Agent()
    passages = [{"source": "guide.md", "title": "Guide", "text": "Water is wet.", "score": 0.5}]

    @agent.tool_plain
    def search_documents(query: str) -> list[dict[str, Any]]:
        return passages if "water" in query else []

    found = await run(agent, "Is water wet?")
    assert called(found) == [("search_documents", {"query": "Is water wet?"})]
    assert "- Water is wet. (guide.md)" in found.output
    assert "search_documents says: nothing." in (await run(agent, "Is fire?")).output


@pytest.mark.anyio
async def test_fills_a_typed_record_with_the_words() -> None:
    agent = Agent(output_type=Order)
    order = (await run(agent, "two red bicycles and a bell")).output
    assert order.title == "Demonstration: two r"
    assert order.notes == ["Demonstration: two red bicycles and a bell"]
    assert (order.colour, order.remark) == (Colour.RED, None)
    assert order.count >= 3
    assert all(part.weight > 1 for part in order.parts)


@pytest.mark.anyio
async def test_long_words_do_not_take_for_ever() -> None:
    answer = (await run(Agent(), "word " * 20_000)).output
    assert len(answer.split()) * SECONDS_A_WORD < 2


@pytest.mark.parametrize("agent", find_agents(agents))
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_answers_for_every_agent_over_http(dev: httpx.Client, agent: str, accept: str) -> None:
    path, body = f"/v1/agents/{agent}/runs", {"input": "The coffee machine is on fire!"}
    response = dev.post(path, json=body, headers={"Accept": accept})
    assert response.headers["content-type"].startswith(accept)
    [ended] = [line for line in response.text.splitlines() if '"output"' in line]
    document = json.loads(ended.removeprefix("data: "))
    assert document["model"] == "function:demonstration"
    assert "demonstration" in str(document["output"]).lower()


NAMES = ["test", "demonstration", "function", "function:demonstration", "function:answer:stream", "test:test"]
KEYS = {variable: "some-key" for variables in CREDENTIALS.values() for variable in variables}


def resolved(name: str, runtime_env: RuntimeEnv, env: dict[str, str]) -> Model | None:
    try:
        return resolve_model(name, runtime_env, env)
    except NoModelError:
        return None


@pytest.mark.parametrize("runtime_env", [RuntimeEnv.STG, RuntimeEnv.PRD])
def test_no_setting_switches_it_on_outside_of_development(
    runtime_env: RuntimeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value if "KEY" in variable else "http://127.0.0.1:1/v1")
    names = [*NAMES, DEFAULT_MODEL, *(f"{provider}:test" for provider in CREDENTIALS)]
    some_key = {"DEMONSTRATION": "true", "AGENT_DEMONSTRATION": "true"}
    models = [
        resolved(name, runtime_env, env) for name, env in itertools.product(names, ({}, KEYS, some_key))
    ]
    assert not any(isinstance(model, FunctionModel | TestModel) for model in models)
    # The names of real models with their keys are what is left.
    assert any(models)
    assert all(resolved(name, runtime_env, {}) is None for name in names)


def test_nor_do_the_names_of_models_for_tests_in_development() -> None:
    assert isinstance(resolve_model(DEFAULT_MODEL, RuntimeEnv.DEV, {}), FunctionModel)
    assert [resolved(name, RuntimeEnv.DEV, {}) for name in NAMES] == [None] * len(NAMES)


@pytest.mark.parametrize("key", ["sk-ключ", "sk-1\n", "sk\x00-1", "“sk-1”"])
def test_a_key_that_no_header_can_hold_is_refused_by_name_and_not_shown(key: str) -> None:
    provider = DEFAULT_MODEL.partition(":")[0]
    for model, variable in ((DEFAULT_MODEL, CREDENTIALS[provider][0]), ("groq:llama", "GROQ_API_KEY")):
        with pytest.raises(NoModelError, match=f"{variable} has a character") as refused:
            resolve_model(model, RuntimeEnv.PRD, {variable: key})
        assert key not in str(refused.value)
