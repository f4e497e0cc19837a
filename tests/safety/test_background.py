"""Runs in the background by a role that may only read and write rows, and through a pooler."""

import json
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.safety.test_pooler import pooler
from tests.safety.test_roles import connect, make_roles, settings
from tests.support.code import Code
from tests.support.servers import Database, Server, free_port, wait_until

__all__ = ["pooler"]


def run_in_background(code: Code, env: dict[str, str], folder: Path) -> str:
    """Ask the service for a run in the background, and return how that ends."""
    own = {
        "RUNTIME_ENV": "dev",
        "AGENT_BACKGROUND": "True",
        "LEDGER": str(folder / "ledger"),
        "OPENAI_API_KEY": "",
    }
    port = free_port()
    client = HTTPConnection("127.0.0.1", port)

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        try:
            client.request(
                method, path, body, {"Content-Type": "application/json", "Prefer": "respond-async"}
            )
            response = client.getresponse()
            return response.status, json.load(response)
        except ConnectionError:
            client.close()
            return 0, None

    with (folder / "log").open("w") as log:
        service = subprocess.Popen(
            [code.python, "-m", "uvicorn", "chassis.tests.background_app:app", "--port", str(port)],
            cwd=code.path,
            env=code.environment({**env, **own}),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: ask("GET", "/ready")[0] == 200, 60)
        status, run = ask("POST", "/v1/agents/assistant/runs", json.dumps({"input": "Good morning"}))
        assert (status, run["status"]) == (202, "queued"), run
        found = f"/v1/runs/{run['run_id']}"
        wait_until(lambda: ask("GET", found)[1]["status"] not in {"queued", "running"}, 60)
        return str(ask("GET", found)[1]["status"])
    finally:
        client.close()
        service.terminate()
        service.wait(60)
        assert "permission denied" not in (folder / "log").read_text()


@pytest.mark.full
def test_a_role_that_writes_rows_will_do(code: Code, debian: Server, tmp_path: Path) -> None:
    database = debian.new_database()
    env = settings(database)
    assert make_roles(code, env).returncode == 0
    migrating = {**env, "DB_USER": env["MIGRATE_DB_USER"], "DB_PASS": env["MIGRATE_DB_PASS"]}
    exit_code, printed = code.alembic(migrating, "upgrade", "head")
    assert exit_code == 0, printed
    with connect(env) as app:
        assert not app.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0]  # type: ignore[index]
    assert run_in_background(code, env, tmp_path) == "succeeded"


@pytest.mark.full
def test_a_pooler_is_no_obstacle(code: Code, pooler: Server, database: Database, tmp_path: Path) -> None:
    """What one hears by no notification is looked for every few seconds."""
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    assert run_in_background(code, {**database.env, "DB_PORT": str(pooler.port)}, tmp_path) == "succeeded"
