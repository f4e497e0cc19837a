"""db/LINT.md has a heading for each rule, and what it says to write instead passes the check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import Engine

from chassis.lint import findings, old_code
from chassis.lint.command import _that_count
from chassis.lint.findings import ALSO, BY_SIZE, GUIDE, KEPT, SQUAWK, Finding, is_small
from chassis.settings import ALEMBIC_INI, WORKSPACE
from chassis.tests.lint.cases import CASES
from chassis.tests.lint.histories import lint

TEXT = (WORKSPACE / GUIDE).read_text(encoding="utf-8")
# A block of the guide is one revision, or more, each after a comment that begins like this.
NEXT = re.compile(r"^# (?:One|The next) revision.*\n", re.MULTILINE)


def constants(node: ast.AST | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def rules_of_code() -> set[str]:
    """Each rule that the source makes a finding of: an argument of `Finding` or `finding`, or the first of a pair."""
    found: set[str] = set()
    for path in Path(findings.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
                place = {"Finding": 1, "finding": 0}.get(called)
                if place is not None and len(node.args) > place:
                    found |= set(constants(node.args[place]))
            elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                found |= set(constants(node.value.elts[0]))
    done = [("read", "c"), ("read", ""), *((what, "") for what in ("null", "unique", "reference", "insert"))]
    return found | {old_code.explain(("t", what, column), "")[0] for what, column in done}


def sections() -> dict[str, str]:
    """The guide's rules, with what it says of each."""
    rules = TEXT.partition("\n## What stops traffic\n")[2]
    return {
        part.partition("\n")[0]: part.partition("\n")[2].partition("\n## ")[0]
        for part in rules.split("\n### ")[1:]
    }


BLOCKS = [
    pytest.param(block, id=f"{rule} {number}")
    for rule, said in sections().items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", said, re.MULTILINE | re.DOTALL), 1)
]


def test_each_rule_has_its_heading_and_each_heading_a_rule() -> None:
    rules = rules_of_code()
    assert rules >= {case.rule for case in CASES.values() if case.rule} | set(ALSO) | BY_SIZE
    assert set(sections()) == rules
    assert all(len(said.split()) > 8 for said in sections().values())


def test_each_rule_of_squawk_is_told_of_and_leads_to_its_page() -> None:
    told = TEXT.partition("\n## The text\n")[2]
    named = dict(re.findall(r"\[`([\w-]+)`\]\((\S+)\)", told))
    assert named == {rule: f"{SQUAWK}/{rule}" for rule in KEPT}
    path = Path("a.py")
    assert {Finding(path, rule, "").link for rule in KEPT} == set(named.values())
    assert {Finding(path, rule, "").link for rule in rules_of_code()} == {
        f"{GUIDE}#{rule}" for rule in sections()
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_guide_says_to_write_passes(postgres: Engine, tmp_path: Path, block: str) -> None:
    upgrades = list(filter(str.strip, NEXT.split(block)))
    assert len(upgrades) == len(NEXT.findall(block)) or not NEXT.search(block)
    report = lint(postgres.url, tmp_path, *upgrades)
    assert report.findings == []
    assert sum(map(len, report.steps.values())) >= len(upgrades)


def test_the_workspace_names_small_tables_in_its_ini() -> None:
    assert Config(ALEMBIC_INI).get_main_option("small_tables") == ""


def test_a_small_table_is_spared_what_only_size_makes_dangerous() -> None:
    path = Path("a.py")
    for rule in rules_of_code() | KEPT:
        assert is_small(Finding(path, rule, "", 1, ("users",)), ["users"]) is (rule in BY_SIZE), rule
    said = TEXT.partition("\n## Small tables\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([\w-]+)`", said)) - {"small_tables"} == BY_SIZE

    def spared(tables: tuple[str, ...], *patterns: str) -> bool:
        return is_small(Finding(path, "table-rewrite", "", 1, tables), patterns)

    assert spared(("users",), "orders", "public.us*")
    assert spared(("users", "ai.notes"), "users", "ai.*")
    assert not spared(("users", "orders"), "users")
    assert not spared(("ai.users",), "users")
    assert not spared((), "*")


def test_small_tables_of_the_ini_are_left_out_of_what_is_said() -> None:
    config = Config()
    config.set_main_option("small_tables", "\npublic.colours\nai.*\n")
    path = Path("a.py")
    table = ("colours",)
    by_size, by_code = (
        Finding(path, "table-rewrite", "", 1, table),
        Finding(path, "write-breaks", "", 2, table),
    )
    large = Finding(path, "table-rewrite", "", 3, ("users",))
    assert list(_that_count(config, [by_size, by_code, large])) == [by_code, large]
