"""The workspace answers the client that pages are made with: Vercel's AI SDK, from npm."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, run
from tests.support.places import served
from tests.support.servers import free_port, npm_install
from tests.support.workspaces import Workspace

# Version 7 speaks the same protocol as 6.
PACKAGE = "ai@7.0.173"
CLIENT = ROOT / "tests/support/vercel_client.mjs"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, and the package it imports."""
    folder = tmp_path_factory.mktemp("node")
    npm_install(folder, PACKAGE)
    shutil.copy(CLIENT, folder)
    return folder


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@pytest.mark.full
def test_client_asks_asks_again_and_edits(workspace: Workspace, node: Path) -> None:
    with served(workspace, port := free_port(), {"MIGRATE_DB": "True"}):
        url = f"http://127.0.0.1:{port}/v1/agents/assistant/vercel"
        seen = json.loads(run("node", "vercel_client.mjs", url, cwd=node).output)

    refused = seen.pop("refused")
    assert refused["status"] == "error"
    assert "There is no agent 'nobody'" in refused["error"]
    assert {(chat["status"], chat.get("error")) for chat in seen.values()} == {("ready", None)}

    question, answer = seen["tool"]["messages"]
    [tool] = [part for part in answer["parts"] if part["type"] == "tool-current_time"]
    assert tool["state"] == "output-available"
    assert tool["output"] in text_of(answer)

    assert "Before that you said: What time is it?" in text_of(seen["second"]["messages"][-1])
    # Another answer to the same question takes the place of the first.
    assert [message["role"] for message in seen["again"]["messages"]] == ["user", "assistant"] * 2
    assert text_of(seen["again"]["messages"][-1]) == text_of(seen["second"]["messages"][-1])
    assert seen["again"]["messages"][-1]["id"] != seen["second"]["messages"][-1]["id"]
    # A question in new words takes the place of all that followed the old one.
    assert text_of(seen["edited"]["messages"][0]) == "My name is Zoë"
    assert len(seen["edited"]["messages"]) == 2
    assert "You said: Who am I?\nBefore that you said: My name is Zoë" in text_of(
        seen["last"]["messages"][-1]
    )
    assert question["id"] == seen["edited"]["messages"][0]["id"]

    # A tool that needs approval: done where there is one, told why not, and left where something else is asked.
    [approved] = [
        part for part in seen["approved"]["messages"][-1]["parts"] if part["type"] == "tool-change_title"
    ]
    assert approved["state"] == "output-available"
    assert "It is called 'Please change the title' now." in text_of(seen["approved"]["messages"][-1])
    [denied] = [
        part for part in seen["denied"]["messages"][-1]["parts"] if part["type"] == "tool-change_title"
    ]
    assert denied["state"] == "output-denied"
    assert "Not now." in text_of(seen["denied"]["messages"][-1])
    assert "You said: Never mind" in text_of(seen["undecided"]["messages"][-1])
