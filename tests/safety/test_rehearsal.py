"""A rolling update of the service itself, and the way back: real processes, one database, steady traffic."""

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.code import REVISION
from tests.support.commands import run
from tests.support.servers import Database, free_port, wait_until
from tests.support.workspaces import Workspace

CLIENTS = 3
MIGRATE = "alembic -c db/alembic.ini upgrade head"
# A new version: a column with a default, which this code writes and shows. The revision is an expansion.
NEW_VERSION = (
    (
        "chassis/conversations/tables.py",
        '    __tablename__ = "conversations"\n',
        '    __tablename__ = "conversations"\n    language: Mapped[str] = mapped_column(server_default="en")\n',
    ),
    (
        "chassis/conversations/store.py",
        "    agent_id: str | None\n    attachments",
        "    language: str\n    agent_id: str | None\n    attachments",
    ),
    (
        "chassis/conversations/store.py",
        '    ANSWERED_LAST.label("agent_id"),\n',
        '    tables.Conversation.language,\n    ANSWERED_LAST.label("agent_id"),\n',
    ),
    (
        "chassis/conversations/routes.py",
        "    updated_at: datetime\n    agent_id",
        "    updated_at: datetime\n    language: str\n    agent_id",
    ),
    (
        "chassis/runs/records.py",
        "INSERT INTO conversations (id, scope, title, revision)\n"
        "        SELECT CAST(:conversation_id AS text), CAST(:owner AS text), CAST(:title AS text), revision\n",
        "INSERT INTO conversations (id, scope, title, revision, language)\n"
        "        SELECT CAST(:conversation_id AS text), CAST(:owner AS text), CAST(:title AS text), revision, 'de'\n",
    ),
)


class Version:
    """A version of the service as its image would hold it."""

    def __init__(self, workspace: Workspace, path: Path) -> None:
        unwanted = shutil.ignore_patterns(".venv", ".git", ".postgres", "__pycache__")
        shutil.copytree(workspace.path, path, ignore=unwanted)
        self.path = path
        self.programs = workspace.path.resolve() / ".venv/bin"

    def change(self) -> None:
        for name, old, new in NEW_VERSION:
            file = self.path / name
            text = file.read_text(encoding="utf-8")
            assert text.count(old) == 1, name
            file.write_text(text.replace(old, new), encoding="utf-8")
        versions = self.path / "db/migrations/versions"
        head = max(versions.glob("*.py")).stem.split("-")[1].split("_")[0]
        column = 'sa.Column("language", sa.Text(), server_default="en", nullable=False)'
        revision = REVISION.format(
            id="language",
            down=head,
            upgrade=f'    op.add_column("conversations", {column})',
            downgrade='    op.drop_column("conversations", "language")',
        )
        (versions / "2030_01_01_0000-language_language.py").write_text(revision, encoding="utf-8")

    def env(self, database: Database, **more: str) -> dict[str, str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **database.env, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def run(self, command: str, database: Database) -> str:
        """Run a command as in a container of its own, such as the migration task."""
        return run(*command.split(), cwd=self.path, env=self.env(database)).output


class Instance:
    """A process of a version, started as its container is."""

    def __init__(self, version: Version, database: Database, log: Path, **env: str) -> None:
        self.port, self.log = free_port(), log
        env |= {
            "API_KEYS_REQUIRED": "True",
            "MIGRATE_WHEN_AHEAD": "start",
            "UVICORN_PORT": str(self.port),
            "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "20",
        }
        with log.open("w") as output:
            self.process = subprocess.Popen(
                ["sh", "scripts/entrypoint.sh", "uvicorn", "api.main:app"],
                cwd=version.path,
                env=version.env(database, **env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.under_way = 0

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/ready")[0] == 200
        return False

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(25)


class Balancer:
    """Sends each request to the next instance that is in it, as a load balancer does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: Iterator[Instance] = iter(())
        self._instances: list[Instance] = []

    def _put(self, instances: list[Instance]) -> None:
        self._instances, self._turns = instances, itertools.cycle(instances)

    def add(self, instance: Instance) -> None:
        wait_until(instance.ready, 60)
        with self._changed:
            self._put([*self._instances, instance])

    def remove(self, instance: Instance) -> None:
        """Give it no request any more, and wait for those that it has."""
        with self._changed:
            self._put([other for other in self._instances if other is not instance])
            assert self._changed.wait_for(lambda: instance.under_way == 0, 20)

    @contextmanager
    def instance(self) -> Iterator[Instance]:
        with self._changed:
            chosen = next(self._turns)
            chosen.under_way += 1
        try:
            yield chosen
        finally:
            with self._changed:
                chosen.under_way -= 1
                self._changed.notify_all()


class Traffic:
    """Clients that talk to the agents all the time. Whatever isn't as it should be is a failure."""

    def __init__(self, balancer: Balancer, key: str) -> None:
        self.failures: list[str] = []
        self._key = {"Authorization": f"Bearer {key}"}
        self.served: Counter[int] = Counter()
        self._balancer, self._ended = balancer, threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, *instances: Instance, requests: int = 25) -> None:
        """Wait until each of these has served so many more."""
        enough = {instance.port: self.served[instance.port] + requests for instance in instances}
        wait_until(lambda: all(self.served[port] >= count for port, count in enough.items()), 30)

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self._talk()
            except Exception as error:
                self.failures.append(repr(error)[:500])
                self._ended.wait(0.1)

    def _ask(self, method: str, path: str, body: object = None, **headers: str) -> str:
        with self._balancer.instance() as instance:
            status, text = instance.ask(method, path, body, **headers, **self._key)
        self.served[instance.port] += 1
        assert status in (200, 204), f"{method} {path}: {status} {text}"
        self._ended.wait(0.03)  # leaves two cores something to start the next instance with
        return text

    def _talk(self) -> None:
        runs = "/v1/agents/assistant/runs"
        first = json.loads(self._ask("POST", runs, {"input": "Hello!"}))
        conversation = first["conversation_id"]
        more = {"input": "And now?", "conversation_id": conversation}
        streamed = self._ask("POST", runs, more, Accept="text/event-stream")
        assert "event: done" in streamed, streamed
        path = f"/v1/conversations/{conversation}"
        said: list[dict[str, Any]] = json.loads(self._ask("GET", path))["messages"]
        asked = [message["content"] for message in said if message["role"] == "user"]
        assert asked == ["Hello!", "And now?"], said
        titled = json.loads(self._ask("PATCH", path, {"title": "Greetings"}))
        assert titled["title"] == "Greetings"
        assert json.loads(self._ask("GET", "/v1/conversations?limit=5"))["conversations"]
        if conversation[-1] < "8":
            self._ask("DELETE", path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.full
def test_no_request_fails_on_the_way_forth_and_back(
    installed: Workspace, database: Database, tmp_path: Path, stack: ExitStack
) -> None:
    old, new = Version(installed, tmp_path / "old"), Version(installed, tmp_path / "new")
    new.change()
    old.run(MIGRATE, database)
    (key,) = re.findall(r"ak_\w{12}_\w{64}", old.run("python -m chassis keys create traffic", database))

    def start(version: Version, **env: str) -> Instance:
        instance = Instance(version, database, tmp_path / f"{time.monotonic_ns()}.log", **env)
        stack.callback(instance.process.wait)
        stack.callback(instance.process.kill)
        return instance

    def smoke_test(instance: Instance) -> None:
        url = f"http://127.0.0.1:{instance.port}"
        run(new.path / "infra/deliver/smoke.sh", url, env={"SMOKE_KEY": key, "SMOKE_PAUSE": "0.1"})

    balancer = Balancer()
    first = start(old)
    balancer.add(first)
    with Traffic(balancer, key) as traffic:
        # Forth: migrate, start new beside old, move the traffic, stop old.
        traffic.go_on(first)
        new.run(MIGRATE, database)
        second = start(new)
        balancer.add(second)
        smoke_test(second)
        traffic.go_on(first, second)
        balancer.remove(first)
        first.stop()
        traffic.go_on(second)
        assert traffic.failures == []

        # Back: the old image, as it is, on the database that is ahead of it, beside the new one.
        third = start(old, MIGRATE_DB="True")
        balancer.add(third)
        assert "ahead of this older image by 1 revision(s)" in third.log.read_text()
        smoke_test(third)
        traffic.go_on(second, third)
        balancer.remove(second)
        second.stop()
        traffic.go_on(third)
        assert traffic.failures == []

        # Old and new rows, each from its version, are in one table.
        languages = dict(database.rows("SELECT language, count(*) FROM conversations GROUP BY language"))
        assert languages.keys() == {"de", "en"}
        listed = json.loads(third.ask("GET", "/v1/conversations", Authorization=f"Bearer {key}")[1])[
            "conversations"
        ]
        assert "language" not in listed[0]

        # The measure itself: what expand and contract forbids does fail requests.
        database.execute("ALTER TABLE conversations RENAME COLUMN title TO subject")
        wait_until(lambda: traffic.failures, 10)

    print(f"{sum(traffic.served.values())} requests")  # noqa: T201 -- a figure to keep an eye on
