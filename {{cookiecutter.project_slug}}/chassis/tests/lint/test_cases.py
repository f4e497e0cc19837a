"""Each operation of `cases` on a real server: the unsafe ones are found by their rule, nothing else is."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text

from chassis.database.engine import sync_engine
from chassis.lint import trial
from chassis.lint.effects import Observer, Sampler
from chassis.lint.errors import LintError
from chassis.lint.old_code import OfClasses
from chassis.lint.rows import Filled
from chassis.lint.trial import Report
from chassis.tests.lint.cases import CASES, Case
from chassis.tests.lint.histories import NO_WAY_BACK, lint, python_of


def lint_steps(
    server: URL, folder: Path, *revisions: Sequence[str], back: Sequence[str] = (NO_WAY_BACK,), **how: Any
) -> Report:
    """Try revisions that are given as steps, see `cases`."""
    return lint(server, folder, *map(python_of, revisions), back=python_of(back), **how)


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_is_found_by_its_rule(postgres: Engine, tmp_path: Path, case: Case) -> None:
    report = lint_steps(postgres.url, tmp_path, *case.revisions)
    if case.rule is None:
        assert report.findings == []
    else:
        assert case.rule in rules(report), report.findings


@pytest.mark.parametrize("is_dead", [False, True])
def test_lock_on_a_dead_index_stops_nobody(new_database: Callable[[], URL], is_dead: bool) -> None:
    """DROP INDEX CONCURRENTLY takes one at its end, for a moment that is seen or not."""
    engine = sync_engine(new_database())
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id int CONSTRAINT users_pkey PRIMARY KEY)"))
        alive = text("UPDATE pg_index SET indislive = :alive WHERE indexrelid = 'users_pkey'::regclass")
        connection.execute(alive, {"alive": not is_dead})
    with engine.connect() as connection:
        index, pid = connection.execute(
            text("SELECT 'users_pkey'::regclass::oid::int8, pg_backend_pid()")
        ).one()
        connection.execute(text("ALTER INDEX users_pkey SET TABLESPACE pg_default"))
        sampler = Sampler(connection, pid)
        time.sleep(0.5)
        locked = dict(sampler.stop())
    engine.dispose()
    assert ("AccessExclusiveLock" in locked.get(index, ())) is not is_dead


# What each part sees, and how to shut its eyes.
BLINDED: dict[str, tuple[str, tuple[object, str, object]]] = {
    "what statements do": ("table-rewrite", (Observer, "_effects", lambda *_: iter(()))),
    "rows": ("fails-on-rows", (trial, "fill", lambda *_: Filled())),
    "the last release's code": ("column-still-read", (OfClasses, "work", lambda *_: {})),
    "rows on the way back": ("rows-lost", (trial, "contents", lambda *_: {})),
}
# All four things in one revision, which would stop all traffic.
WORST = (
    "ALTER TABLE users ADD COLUMN number serial",
    "ALTER TABLE users DROP COLUMN bio",
    "ALTER TABLE users ALTER age SET NOT NULL",
)
WAY_BACK = (
    "ALTER TABLE users DROP COLUMN number",
    "ALTER TABLE users ADD COLUMN bio text",
    "DELETE FROM tags",
)


@pytest.mark.parametrize(("rule", "eyes"), BLINDED.values(), ids=BLINDED)
def test_what_is_not_looked_at_is_not_found(
    postgres: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    eyes: tuple[object, str, object],
) -> None:
    """Each kind of finding comes from its observation alone, so a part that sees nothing would be noticed."""
    steps = WORST if rule != "rows-lost" else WORST[:2]
    assert rule in rules(lint_steps(postgres.url, tmp_path / "seen", steps, back=WAY_BACK))
    monkeypatch.setattr(*eyes)
    assert rule not in rules(lint_steps(postgres.url, tmp_path / "blind", steps, back=WAY_BACK))


@pytest.mark.parametrize(
    ("steps", "back", "rule"),
    [
        (("ALTER TABLE tags ADD COLUMN x text",), ("ALTER TABLE tags DROP COLUMN y",), "downgrade-fails"),
        (("ALTER TABLE tags ADD COLUMN x text",), ("SELECT 1",), "upgrade-again-fails"),
        (
            ("ALTER TABLE users ALTER age DROP NOT NULL",),
            ("ALTER TABLE users ALTER age SET NOT NULL",),
            "downgrade-fails",
        ),
        (("SELECT 1",), ("UPDATE orders SET note = 'x'",), "rows-lost"),
    ],
)
def test_the_way_back(
    postgres: Engine, tmp_path: Path, steps: tuple[str, ...], back: tuple[str, ...], rule: str
) -> None:
    assert rules(lint_steps(postgres.url, tmp_path, steps, back=back)) == {rule}


def test_a_role_of_one_try_is_not_in_the_way_of_the_next(postgres: Engine, tmp_path: Path) -> None:
    """Roles belong to the whole server, and a revision that fails on rows is tried again without."""
    steps = ('CREATE ROLE "a reader"', "ALTER TABLE users ALTER age SET NOT NULL")
    back = ("ALTER TABLE users ALTER age DROP NOT NULL", 'DROP ROLE "a reader"')
    for number in range(2):
        found = rules(lint_steps(postgres.url, tmp_path / str(number), steps, back=back))
        assert found == {"fails-on-rows", "scan-under-lock"}


def test_without_a_base_each_revision_meets_the_tables_as_they_are(postgres: Engine, tmp_path: Path) -> None:
    """Also after a second try, on tables of another database; what a team's rows are for isn't known then."""
    steps = ("ALTER TABLE users ALTER age SET NOT NULL", "CREATE INDEX i ON users (email)")
    made = ("CREATE TABLE fresh (id integer PRIMARY KEY)",)
    dropped = ("ALTER TABLE fresh ADD COLUMN x text", "DROP TABLE tags")
    own = "INSERT INTO nothing VALUES (1)"
    report = lint_steps(postgres.url, tmp_path, steps, made, dropped, rows=own, base_known=False)
    assert rules(report) == {"fails-on-rows", "scan-under-lock", "index-under-lock", "table-still-read"}


def test_what_the_way_back_loses_is_said(postgres: Engine, tmp_path: Path) -> None:
    report = lint_steps(
        postgres.url,
        tmp_path,
        ("ALTER TABLE users DROP COLUMN unmapped",),
        back=("ALTER TABLE users ADD COLUMN unmapped text",),
    )
    assert (report.findings, report.notes) == (
        [],
        ["The way back doesn't bring back what was in users: unmapped."],
    )


def test_a_team_gives_rows_that_only_it_knows(postgres: Engine, tmp_path: Path) -> None:
    """Rows that a revision doesn't bear are found among those, too."""
    steps = ("ALTER TABLE tags ADD CONSTRAINT c CHECK (word <> 'never') NOT VALID", "alone: SELECT 1")
    checked = "DO $$ BEGIN IF EXISTS (SELECT FROM tags WHERE word = 'never') THEN RAISE 'never say it'; END IF; END $$"
    assert rules(lint_steps(postgres.url, tmp_path / "without", steps, (checked,))) == set()
    own = "INSERT INTO tags (id, word) VALUES (1, 'never')"
    report = lint_steps(postgres.url, tmp_path / "with", (checked,), rows=own)
    assert "fails-on-rows" in rules(report)
    with pytest.raises(
        LintError, match=r"^db/sample_rows\.sql fails on the tables as they are at the base: "
    ):
        lint_steps(postgres.url, tmp_path / "wrong", steps, rows="INSERT INTO nothing VALUES (1)")


def test_a_finding_has_the_line_that_it_is_about(postgres: Engine, tmp_path: Path) -> None:
    steps = (
        "ALTER TABLE users ADD COLUMN x text",
        "COMMENT ON TABLE users IS 'people'",
        "ALTER TABLE users DROP COLUMN bio",
        "ALTER TABLE users ALTER level DROP NOT NULL",
    )
    report = lint_steps(postgres.url, tmp_path, steps, back=WAY_BACK[1:2])
    [told] = [finding for finding in report.findings if finding.rule == "column-still-read"]
    seen = {step.line: step for step in report.steps["r1"]}
    assert "DROP COLUMN bio" in seen[told.line].statement
    # A second change in one transaction is seen, too.
    assert all(
        any(effect.altered for effect in step.effects) for step in seen.values() if "ALTER" in step.statement
    )
