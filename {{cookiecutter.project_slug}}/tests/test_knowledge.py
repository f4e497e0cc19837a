"""The knowledge agent answers from the documents that it was given, and names them."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
from sqlalchemy import URL, delete

from chassis.database.engine import sync_engine
from chassis.knowledge.tables import Document
from chassis.settings import WORKSPACE
from chassis.testing.client import SSE, events
from chassis.testing.service import clean_env

QUESTION = {"input": 'call search_documents {"query": "How many days of holidays do I have?"}'}


def test_it_finds_the_passage_that_answers(
    client: httpx.Client, database: URL, model: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "holidays.md").write_text("# Leave\n\nEach person has 31 days of holidays a year.\n")
    (tmp_path / "lunch.md").write_text("# Lunch\n\nThe kitchen opens at noon.\n")
    env = clean_env(DATABASE_URL=database.render_as_string(hide_password=False), **model)
    subprocess.run([sys.executable, "-m", "chassis", "ingest", tmp_path], cwd=WORKSPACE, env=env, check=True)
    answer = client.post("/v1/agents/knowledge/runs", json=QUESTION, headers=SSE)
    engine = sync_engine(database)
    with engine.begin() as connection:  # which other tests share
        connection.execute(delete(Document))
    engine.dispose()
    [result] = [data for name, data in events(answer) if name == "tool_result"]
    best = json.loads(result["content"])[0]
    assert (best["title"], Path(best["source"]).name) == ("Leave", "holidays.md")
