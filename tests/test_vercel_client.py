"""The workspace answers the client that pages are made with: Vercel's AI SDK, from npm."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, run

# Version 7 speaks the same protocol as 6.
PACKAGE = "ai@7.0.173"
CLIENT = Path(__file__).with_name("vercel_client.mjs")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, and the package it imports."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("CI"):
            pytest.fail("npm is missing: install Node.js, 20 or newer")
        pytest.skip("npm is missing")
    folder = tmp_path_factory.mktemp("node")
    run(
        npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, PACKAGE, cwd=folder
    )
    shutil.copy(CLIENT, folder)
    return folder


@contextmanager
def served(workspace: Workspace, log: Path) -> Iterator[str]:
    """Migrate and serve the workspace in development; yield its address."""
    workspace.alembic("upgrade", "head")
    with log.open("w", encoding="utf-8") as output:
        command = [str(workspace.path / ".venv/bin/uvicorn"), "api.main:app", "--port", "0"]
        process = subprocess.Popen(command, cwd=workspace.path, stdout=output, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 120
            while not (found := re.search(r"running on (http://\S+)", log.read_text(encoding="utf-8"))):
                assert time.monotonic() < until, log.read_text(encoding="utf-8")
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
            process.wait(timeout=30)


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def test_client_asks_asks_again_and_edits(workspace: Workspace, node: Path, tmp_path: Path) -> None:
    with served(workspace, tmp_path / "log") as address:
        url = f"{address}/v1/agents/assistant/vercel"
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
