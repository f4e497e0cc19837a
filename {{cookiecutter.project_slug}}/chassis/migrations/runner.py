"""Run a command of Alembic so that it is safe beside other containers and beside traffic."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, pool

from chassis.database.connection import DatabaseUnavailableError, connect
from chassis.database.url import migration_url
from chassis.database.version_table import VersionTable
from chassis.migrations import state as states
from chassis.migrations import version_table
from chassis.migrations.lock import gate, take_work_lock
from chassis.migrations.options import Options
from chassis.migrations.retry import migrate_with_retries
from chassis.settings import SettingsError

log = logging.getLogger("alembic.runner")

# One attempt to connect; a host that drops packets would otherwise take minutes.
ATTEMPT_SECONDS = 5
READING = {"branches", "check", "current", "heads", "history", "revision", "show"}
# This is a way out for a database whose revision the code doesn't know.
AT_ANY_REVISION = {"stamp"}


@dataclass(frozen=True)
class Runner:
    """Runs one command on one database.

    Attributes:
        command: the name of Alembic's command, "upgrade" for one to the head; an unknown name is taken
            for one that writes.
        script: the revisions.
        options: how careful to be.
        table: where the database keeps its revision.
        migrate: runs the command's revisions on a connection.
    """

    command: str
    script: ScriptDirectory
    options: Options
    table: VersionTable
    migrate: Callable[[Connection], None]

    def run(self, engine: Engine) -> None:
        """Run the command, alone if it writes and there is something to write."""
        with connect(engine, self.options.connect_timeout) as connection:
            if not self._has_work(connection):
                return
            if self.command in READING:
                self.migrate(connection)
            else:
                self._run_alone(engine, connection.execution_options(isolation_level="AUTOCOMMIT"))

    def _run_alone(self, engine: Engine, keeper: Connection) -> None:
        """Wait for the gate on one connection, and open the one that migrates only then."""
        with (
            gate(keeper, self.options.lock_timeout, self.table),
            connect(engine, self.options.connect_timeout) as connection,
        ):
            take_work_lock(connection, self.options.lock_timeout, self.table)
            # Another process may have done the work while this one waited.
            if self._has_work(connection):
                began_at = states.read(connection, self.script, self.table).current

                def migrate() -> None:
                    # "-2" counts from where the database is, so a second try would go further than asked.
                    if (
                        self.command != "upgrade"
                        and states.read(connection, self.script, self.table).current != began_at
                    ):
                        raise CommandError(
                            "A table stayed in use, and part of the way is done. See where the database is, "
                            "and go on from there: alembic -c db/alembic.ini current"
                        )
                    self.migrate(connection)

                migrate_with_retries(connection, self.options, migrate)
                states.record_lineage(connection, self.script, self.table)

    def _has_work(self, connection: Connection) -> bool:
        """Whether there is anything to do, which for a database ahead of the code is a matter of policy."""
        if self.command in AT_ANY_REVISION:
            return True
        state = states.read(connection, self.script, self.table)
        if not state.unknown:
            return self.command != "upgrade" or not state.at_head
        message = states.explain(connection, state, self.script, self.table)
        if self.command == "upgrade" and self.options.when_ahead == "start":
            log.warning("%s Nothing is migrated, as MIGRATE_WHEN_AHEAD=start says.", message)
            return False
        raise CommandError(f"{message} {states.WAYS_OUT}")


def run(
    config: Config,
    script: ScriptDirectory,
    arguments: Mapping[str, str],
    migrate: Callable[[Connection], None],
) -> None:
    """Run the command that `config` was made for on the database that the environment names.

    `arguments` come from ``-x``; `migrate` runs the command's revisions on a connection.

    Raises:
        CommandError: with one or two lines for the user.
        SystemExit: with 128 plus the signal's number, after SIGTERM or SIGINT.
    """
    command = _command_of(config)
    with _ending_on_signals():
        try:
            options = Options.read(os.environ, arguments)
            name = f"alembic {command} on {socket.gethostname()}"[:63]
            arguments_of_libpq = {
                "application_name": name,
                "connect_timeout": ATTEMPT_SECONDS,
                "prepare_threshold": None,
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
            }
            Runner(command, script, options, version_table.of(config), migrate).run(
                create_engine(migration_url(), poolclass=pool.NullPool, connect_args=arguments_of_libpq)
            )
        except (SettingsError, DatabaseUnavailableError) as error:
            raise CommandError(str(error)) from None


def _command_of(config: Config) -> str:
    options = config.cmd_opts
    if options is None:  # A program has called Alembic: all care is taken, whatever it does.
        return "migration"
    command: str = options.cmd[0].__name__
    if command == "upgrade" and options.revision not in {"head", "heads"}:
        return "upgrade to a revision"
    return command


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an orderly end: the statement is cancelled, the revision rolled back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except BaseException:
        if not received:
            raise
        # The way out may have raised something else on the statement that was cut off.
        log.warning("Stopped by a signal: the revision under way was rolled back, finished ones stay.")
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
