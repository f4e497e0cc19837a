"""Many containers start at once, and some of them are killed."""

import signal
import time

import pytest

from tests.support.code import Code
from tests.support.marks import quick_are
from tests.support.servers import Database, wait_until

ONCE = "op.execute(\"INSERT INTO applied VALUES ('{id}')\")"


def add_slow_revisions(code: Code, seconds: float = 0.15) -> None:
    """Add revisions that each take a while and leave a mark for each time they are applied."""
    code.add(
        "r1",
        f'op.create_table("applied", sa.Column("id", sa.Text))\nop.execute("SELECT pg_sleep({seconds})")\n{ONCE.format(id="r1")}',
    )
    code.add(
        "r2",
        f'op.create_table("t", sa.Column("a", sa.Integer))\nop.execute("SELECT pg_sleep({seconds})")\n{ONCE.format(id="r2")}',
    )
    code.add(
        "r3",
        "with op.get_context().autocommit_block():\n"
        '    op.create_index("ix_t_a", "t", ["a"], postgresql_concurrently=True, if_not_exists=True)\n'
        + ONCE.format(id="r3"),
    )
    code.add(
        "r4",
        f'op.execute("SELECT pg_sleep({seconds})")\nop.add_column("t", sa.Column("b", sa.Integer))\n{ONCE.format(id="r4")}',
    )


def applied(database: Database) -> list[str]:
    return [name for (name,) in database.rows("SELECT id FROM applied ORDER BY id")]


@pytest.mark.parametrize(
    ("server", "rounds"),
    [
        ("debian", 2),
        pytest.param("debian", 10, marks=pytest.mark.full),
        pytest.param("embedded", 2, marks=pytest.mark.full),
    ],
)
def test_replicas_that_start_together(
    code: Code, server: str, rounds: int, request: pytest.FixtureRequest
) -> None:
    add_slow_revisions(code)
    for _ in range(rounds):
        database = request.getfixturevalue(server).new_database()
        outcomes = code.replicas(database.env, 32, "upgrade", "head")
        assert [code for code, _ in outcomes] == [0] * 32, [output for code, output in outcomes if code]
        assert applied(database) == ["r1", "r2", "r3", "r4"]


def test_at_head_nothing_waits(code: Code, database: Database) -> None:
    """While somebody else holds every lock, a start at head neither waits nor fails."""
    add_slow_revisions(code, 0)
    newer = code.newer(code.path.parent / "newer")
    newer.add("r5", 'op.execute("SELECT pg_sleep(60)")')
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    holder = newer.start(database.env, "upgrade", "head")
    try:
        wait_until(lambda: database.running("pg_sleep"), 20)
        outcomes = code.replicas(database.env, 32, "upgrade", "head")
        assert [code for code, _ in outcomes] == [0] * 32
        assert not any("Waiting" in output for _, output in outcomes)
        assert holder.poll() is None
    finally:
        holder.terminate()
        holder.communicate()


@pytest.mark.parametrize(
    ("stage", "signal_number"),
    quick_are(
        ["r2-SIGKILL"],
        {
            f"{stage}-{number.name}": (stage, number)
            for stage in ("r1", "r2", "r3", "r4")
            for number in (signal.SIGKILL, signal.SIGTERM)
        },
    ),
)
def test_the_holder_is_killed(code: Code, database: Database, signal_number: int, stage: str) -> None:
    # The workspace's own revisions build indexes too, which would wait for the blocker as well.
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    add_slow_revisions(code, 1.5)
    blocker = database.connect(application_name="blocker")
    if stage == "r3":
        # CREATE INDEX CONCURRENTLY waits for every snapshot that is older than it.
        blocker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        blocker.execute("SELECT 1")
    victim = code.start(database.env, "upgrade", "head")
    if stage == "r3":
        wait_until(lambda: database.running("CREATE INDEX CONCURRENTLY"), 20)
    else:
        done = {"r1": 0, "r2": 1, "r4": 3}[stage]
        wait_until(lambda: marks(database) == done and database.running("pg_sleep"), 30)
    others = [code.start(database.env, "upgrade", "head") for _ in range(2)]
    if stage != "r3":
        time.sleep(0.8)
    victim.send_signal(signal_number)
    output, _ = victim.communicate(timeout=15)
    assert victim.returncode == (-9 if signal_number == signal.SIGKILL else 143), output
    blocker.close()
    outputs = [other.communicate(timeout=60)[0] for other in others]
    assert [other.returncode for other in others] == [0, 0], outputs
    assert applied(database) == ["r1", "r2", "r3", "r4"]
    if database.rows("SELECT 1 FROM pg_index WHERE NOT indisvalid"):
        assert any("DROP INDEX CONCURRENTLY public.ix_t_a" in said for said in [output, *outputs])
    assert database.sessions() == []


def marks(database: Database) -> int:
    if database.rows("SELECT to_regclass('applied')")[0][0] is None:
        return 0
    return int(database.rows("SELECT count(*) FROM applied")[0][0])


@pytest.mark.full
def test_the_next_one_goes_on_within_a_second(code: Code, database: Database) -> None:
    code.add("r1", 'op.execute("SELECT pg_sleep(60)")')
    victim = code.start(database.env, "upgrade", "head")
    wait_until(lambda: database.running("pg_sleep"), 20)
    newer = Code.copy(code.python.parent.parent.parent, code.path.parent / "quick")
    newer.add("r1", 'op.execute("CREATE TABLE quick ()")')
    waiting = newer.start(database.env, "upgrade", "head")
    wait_until(lambda: len(database.sessions()) == 3, 20)
    time.sleep(0.5)
    victim.kill()
    began = time.monotonic()
    wait_until(lambda: database.rows("SELECT to_regclass('quick')")[0][0] is not None, 10)
    took = time.monotonic() - began
    output, _ = waiting.communicate(timeout=20)
    victim.communicate()
    assert waiting.returncode == 0, output
    assert "alembic upgrade on" in output
    # A second is the promise; the rest is for two cores that other tests use too.
    assert took < 2.5, f"it took {took:.1f} s"


@pytest.mark.full
@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_waiting(code: Code, database: Database, signal_number: int, exit_code: int) -> None:
    before = code.head
    code.add("r1", 'op.execute("SELECT pg_sleep(60)")')
    holder = code.start(database.env, "upgrade", "head")
    wait_until(lambda: database.running("pg_sleep"), 20)
    waiting = code.start(database.env, "upgrade", "head")
    wait_until(lambda: len(database.sessions()) == 3, 20)
    time.sleep(0.5)
    waiting.send_signal(signal_number)
    output, _ = waiting.communicate(timeout=10)
    assert waiting.returncode == exit_code, output
    assert "Traceback" not in output
    holder.send_signal(signal_number)
    output, _ = holder.communicate(timeout=10)
    assert holder.returncode == exit_code, output
    assert "Traceback" not in output
    wait_until(lambda: database.sessions() == [], 3)
    assert database.rows("SELECT version_num FROM alembic_version") == [(before,)]


@pytest.mark.full
def test_the_wait_is_bounded(code: Code, database: Database) -> None:
    code.add("r1", 'op.execute("SELECT pg_sleep(60)")')
    holder = code.start(database.env, "upgrade", "head")
    wait_until(lambda: database.running("pg_sleep"), 20)
    exit_code, output = code.alembic({**database.env, "MIGRATE_LOCK_TIMEOUT": "1"}, "upgrade", "head")
    assert exit_code == 255
    assert "FAILED: Another process still migrates after 1 s: pid" in output
    assert "Traceback" not in output
    holder.kill()
    holder.communicate()
