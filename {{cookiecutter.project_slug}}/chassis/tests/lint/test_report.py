"""What is said to reviewers and to GitHub: whatever a statement or PostgreSQL says, it stays text."""

from pathlib import Path

from chassis.lint.effects import Step
from chassis.lint.findings import Finding
from chassis.lint.released import VERSIONS
from chassis.lint.report import FORMATS
from chassis.lint.trial import Report

FILE = Path(VERSIONS) / "1_add.py"
STEP = Step(FILE, 3, "SELECT `a` || '<b>'", "SELECT", alone=False, effects=())
ODD = Finding(FILE, "fails", "<b> *c* `d_|` [x](y) & e_f _g_\n::error::h, 100%", 3)


def say(form: str, *findings: Finding, notes: tuple[str, ...] = ()) -> str:
    report = Report({"r1": [STEP]}, notes=list(notes))
    return "\n".join(FORMATS[form](report, findings))


def test_markdown_shows_a_statement_and_a_message_as_they_are() -> None:
    said = say("markdown", ODD, notes=("a `b", "c < d"))
    assert "| 3 | `SELECT 'a' \\|\\| '<b>'` | nothing in use |" in said
    escaped = r"\<b\> \*c\* `d_|` \[x\](y) \& e_f \_g\_ ::error::h, 100%"
    assert f"- `1_add.py:3` **fails**: {escaped} ([what to do](db/LINT.md#fails))" in said
    assert said.endswith("- a \\`b\n- c \\< d")


def test_an_annotation_is_one_line_and_names_the_file() -> None:
    several = Finding(Path(VERSIONS), "heads", "there are several")
    odd, heads, note = say("github", ODD, several, notes=("a\nb",)).splitlines()
    assert odd == (
        f"::error file={VERSIONS}/1_add.py,line=3,title=fails::"
        "<b> *c* `d_|` [x](y) & e_f _g_%0A::error::h, 100%25 See db/LINT.md#fails."
    )
    assert heads == f"::error file={VERSIONS},line=1,title=heads::there are several See db/LINT.md#heads."
    assert note == "::notice::a%0Ab"
