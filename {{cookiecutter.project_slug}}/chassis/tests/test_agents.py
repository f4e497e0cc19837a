"""Agents are found by their modules, and no other file needs to know of them."""

import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from chassis.agents.registry import find_agents

AGENT = "from pydantic_ai import Agent\n\nAGENT = Agent({name})\n"


def test_agents_are_the_modules_and_packages_that_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some_agents"
    for name, text in {
        "__init__": "",
        "support": AGENT.format(name='name="Support", description="Helps."'),
        "nameless": AGENT.format(name=""),
        "helpers": "AGENTS = 1\n",
        "billing/__init__": AGENT.format(name='name="Billing"') + "from some_agents.billing import tools\n",
        "billing/tools": "",
    }.items():
        (folder / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    try:
        found = find_agents(import_module("some_agents"))
    finally:
        for name in [name for name in sys.modules if name.startswith("some_agents")]:
            del sys.modules[name]
    told = {agent.id: (agent.name, agent.description) for agent in found.values()}
    assert told == {
        "support": ("Support", "Helps."),
        "nameless": ("nameless", ""),
        "billing": ("Billing", ""),
    }
