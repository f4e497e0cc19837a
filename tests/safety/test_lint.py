"""`python -m chassis lint` in a git repository: what it finds, what it says, and what it lets pass."""

import re
import shutil
from pathlib import Path
from typing import Self

import pytest

from tests.support.code import Code
from tests.support.commands import Outcome, run
from tests.support.workspaces import Workspace

# What a revision does to tables in use, and the rule that sees it. Each leaves the tables such that the next can run.
UNSAFE = [
    ("index-under-lock", 'op.create_index("i", "runs", ["model"])'),
    ("index-drop-under-lock", 'op.drop_index("ix_runs_conversation_id_started_at", "runs")'),
    ("rows-in-bulk", "op.execute(\"UPDATE runs SET error = 'x'\")"),
    (
        "several-tables-locked",
        'for table in ("runs", "conversations"):\n    op.add_column(table, sa.Column("x", sa.Text()))',
    ),
    ("null-unexpected", 'op.alter_column("runs", "model", nullable=True)'),
    ("scan-under-lock", 'op.create_check_constraint("c", "runs", "length(model) < 5000")'),
    ("constraint-relied-on", 'op.drop_constraint("fk_runs_conversation_id_conversations", "runs")'),
    ("column-still-read", 'op.drop_column("runs", "error")'),
    ("fails-on-rows", 'op.add_column("runs", sa.Column("y", sa.Text(), nullable=False))'),
    ("table-rewrite", 'op.alter_column("conversations", "format_version", type_=sa.BigInteger())'),
    ("prefer-timestamp-tz", 'op.add_column("runs", sa.Column("z", sa.DateTime()))'),
]

SAFE = [
    'op.add_column("runs", sa.Column("a", sa.Text(), nullable=True))',
    'op.add_column("runs", sa.Column("b", sa.Text(), server_default="x", nullable=False))',
    'op.create_table("added", sa.Column("id", sa.Integer(), primary_key=True))\n'
    'op.create_index("ix_added_id", "added", ["id"])',
    "with op.get_context().autocommit_block():\n"
    '    op.create_index("ix_runs_model", "runs", ["model"], postgresql_concurrently=True)',
    "op.execute(\"ALTER TABLE runs ADD CONSTRAINT d CHECK (model <> '') NOT VALID\")",
    'op.execute("ALTER TABLE runs VALIDATE CONSTRAINT d")',
]


class Repository(Code):
    """A workspace's code in git, its first revision released."""

    @classmethod
    def make(cls, workspace: Workspace, to: Path) -> Self:
        repository = cls.copy(workspace.path, to)
        repository.git("init", "-q")
        repository.commit("first")
        return repository

    def git(self, *arguments: str) -> str:
        return run("git", *arguments, cwd=self.path).output.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def file(self, revision: str) -> Path:
        return next((self.path / "db/migrations/versions").glob(f"*{revision}*.py"))

    def change(self, revision: str, old: str, new: str) -> None:
        text = self.file(revision).read_text()
        assert old in text
        self.file(revision).write_text(text.replace(old, new))

    def lint(self, *arguments: str, env: dict[str, str] | None = None) -> Outcome:
        return run(
            self.python,
            "-m",
            "chassis",
            "lint",
            *arguments,
            cwd=self.path,
            env={"PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            check=False,
        )

    def finds(self, *expected: str, base: str | None = None) -> str:
        """Lint; it must fail, without a traceback, and say what is expected."""
        outcome = self.lint(*(("--base", base) if base else ()))
        assert outcome.code == 1, outcome.output
        assert "Traceback" not in outcome.output
        for text in expected:
            assert text in outcome.output, outcome.output
        return outcome.output


@pytest.fixture
def repository(installed: Workspace, tmp_path: Path) -> Repository:
    return Repository.make(installed, tmp_path / "code")


BACK = 'op.execute("SELECT 1")'
WHAT_NEXT = "Mend it, or allow it in the file: # lint: allow RULE -- reason. See db/LINT.md."


@pytest.mark.full
def test_a_clean_workspace_passes(repository: Repository) -> None:
    outcome = repository.lint()
    assert outcome.code == 0, outcome.output
    assert "ok  check: tables and revisions agree" in outcome.output


def test_unsafe_operations_are_found_and_safe_ones_are_not(repository: Repository) -> None:
    """One run over a revision for each unsafe operation, and for each safe one."""
    for number, (_, upgrade) in enumerate(UNSAFE):
        repository.add(f"unsafe{number:02}", upgrade, BACK)
    for number, upgrade in enumerate(SAFE):
        repository.add(f"safe{number:02}", upgrade, BACK)
    outcome = repository.lint()
    assert outcome.code == 1
    found = {
        (int(number), rule)
        for number, rule in re.findall(
            r"^\S+-unsafe(\d\d)\.py(?::\d+)?: ([\w-]+): .{20,}$", outcome.output, re.MULTILINE
        )
    }
    assert found >= {(number, rule) for number, (rule, _) in enumerate(UNSAFE)}, outcome.output
    assert not re.search(r"-safe\d\d\.py(:\d+)?: ", outcome.output), outcome.output
    assert outcome.output.rstrip().endswith(WHAT_NEXT)
    # Whatever is not looked at is said, and in this workspace all is.
    assert not re.search("^Note: .*(can't be asked|could not be filled)", outcome.output, re.MULTILINE), (
        outcome.output
    )


@pytest.mark.full
def test_each_exception_allows_its_rule_alone(repository: Repository) -> None:
    drops = 'op.drop_column("runs", "error")\nop.rename_table("runs", "attempts")'
    repository.add("aaa", f"# lint: allow ban-drop-column -- nothing reads it\n{drops}", BACK)
    output = repository.finds("-aaa.py:15: table-still-read: The last release reads `runs`: ", WHAT_NEXT)
    assert "column-still-read" not in output


@pytest.mark.full
def test_an_exception_needs_a_reason(repository: Repository) -> None:
    repository.add("aaa", '# lint: allow ban-drop-column\nop.drop_column("runs", "error")', BACK)
    repository.finds("column-still-read")


@pytest.mark.full
def test_a_revision_that_is_allowed_passes(repository: Repository) -> None:
    """Dropped and, for the verification to find no difference, added again."""
    repository.add(
        "aaa",
        "# lint: allow ban-drop-column -- a test\n"
        'op.drop_column("runs", "error")\n'
        'op.add_column("runs", sa.Column("error", sa.Text(), comment="what went wrong, in words fit for the caller"))',
        BACK,
    )
    outcome = repository.lint()
    assert outcome.code == 0, outcome.output


@pytest.mark.full
def test_several_heads(repository: Repository) -> None:
    first = repository.head
    repository.add("aaa", "pass", down=first)
    repository.add("bbb", "pass", down=first)
    repository.finds("heads: there are several: alembic -c db/alembic.ini merge -m '...' heads")


@pytest.mark.full
def test_a_merge_answers_for_itself_only(repository: Repository) -> None:
    first = repository.head
    allowed = '# lint: allow ban-drop-column -- a test\nop.drop_column("runs", "error")'
    repository.add("aaa", allowed, BACK, down=first)
    repository.add("bbb", 'op.execute("SELECT 1")', BACK, down=first)
    repository.add("joined", 'op.drop_table("api_key_usage")', BACK, down=("aaa", "bbb"))
    assert "column-still-read" not in repository.finds("-joined.py:13: table-still-read")


def test_an_edited_released_revision(repository: Repository) -> None:
    repository.add("aaa", 'op.execute("SELECT 1")', BACK)
    released = repository.commit("released")
    repository.change("aaa", "SELECT 1", "SELECT 2")
    edited = "edited: databases have run it as it was. Restore it; put the change into a new revision."
    repository.finds("-aaa.py: " + edited, WHAT_NEXT)
    repository.commit("edited")
    repository.finds("-aaa.py: " + edited, base=released)
    repository.change("aaa", "def upgrade", "# lint: allow edited -- only the comment changed\ndef upgrade")
    outcome = repository.lint("--base", released)
    assert outcome.code == 0, outcome.output


@pytest.mark.full
def test_an_edited_revision_with_a_name_beyond_ascii(repository: Repository) -> None:
    repository.add("aaa", 'op.execute("SELECT 1")', BACK)
    [path] = (repository.path / "db/migrations/versions").glob("*-aaa.py")
    path = path.rename(path.with_name("2030_01_01_0000-aaa_größe_der_tickets.py"))
    repository.commit("released")
    path.write_text(path.read_text(encoding="utf-8").replace("SELECT 1", "SELECT 2"), encoding="utf-8")
    repository.finds("-aaa_größe_der_tickets.py: edited: databases have run it as it was.")


@pytest.mark.full
def test_other_line_ends_are_no_edit(repository: Repository) -> None:
    repository.add("aaa", 'op.execute("SELECT 1")', BACK)
    path = repository.file("aaa")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    repository.commit("released")
    assert repository.lint().code == 0
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    outcome = repository.lint()
    assert outcome.code == 0, outcome.output


@pytest.mark.full
def test_a_removed_released_revision(repository: Repository) -> None:
    repository.add("aaa", 'op.execute("SELECT 1")', BACK)
    repository.commit("released")
    repository.file("aaa").unlink()
    repository.finds("-aaa.py: removed: databases may be at this revision. Restore it", WHAT_NEXT)


@pytest.mark.full
def test_a_removed_revision_that_another_one_follows(repository: Repository) -> None:
    repository.add("aaa", "pass")
    repository.add("bbb", "pass")
    repository.file("aaa").unlink()
    repository.finds("A revision follows 'aaa', whose file isn't here: restore it.")


@pytest.mark.full
@pytest.mark.parametrize("downgrade", ["pass", '"""Nothing."""', 'raise NotImplementedError("no way back")'])
def test_a_downgrade_that_takes_nothing_back(repository: Repository, downgrade: str) -> None:
    repository.add("aaa", 'op.execute("SELECT 1")', downgrade)
    repository.finds(
        "-aaa.py:16: irreversible: downgrade() doesn't take back what upgrade() does.", WHAT_NEXT
    )


@pytest.mark.full
def test_a_revision_without_a_way_back_can_be_meant(repository: Repository) -> None:
    repository.add("aaa", '# lint: allow irreversible -- only rows\nop.execute("SELECT 1")', "pass")
    outcome = repository.lint()
    assert outcome.code == 0, outcome.output


@pytest.mark.full
def test_a_difference_between_tables_and_revisions(repository: Repository) -> None:
    tables = repository.path / "chassis/runs/tables.py"
    tables.write_text(
        tables.read_text().replace("    model: Mapped[str]\n", "    model: Mapped[str | None]\n")
    )
    repository.finds(
        "Tables and revisions differ. Write a revision for it:",
        "runs.model, NOT NULL: the revisions make it, the classes nothing",
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        (
            'op.get_bind().execute(sa.text("SELECT 1")).scalar()',
            "-aaa.py can't be rendered as SQL: AttributeError",
        ),
        ("nonsense(", "A revision can't be read: SyntaxError: '(' was never closed"),
        ('op.execute("ALTER TABEL runs")', "-aaa.py: syntax-error"),
    ],
    ids=["asks the database", "no Python", "no SQL"],
)
def test_a_revision_that_cannot_be_read(repository: Repository, upgrade: str, expected: str) -> None:
    repository.add("aaa", upgrade, BACK)
    repository.finds(expected)


@pytest.mark.full
def test_an_unknown_base(repository: Repository) -> None:
    repository.finds("git knows no nowhere. Fetch it, or name another base: --base main", base="nowhere")


@pytest.mark.full
def test_the_base_is_where_the_branch_left(repository: Repository) -> None:
    """What main got since is no revision that the branch has removed; what the branch added is new."""
    main = repository.git("branch", "--show-current")
    repository.git("checkout", "-q", "-b", "branch")
    repository.add("aaa", 'op.drop_table("api_key_usage")', BACK)
    repository.commit("on the branch")
    repository.git("checkout", "-q", main)
    repository.add("bbb", "pass")
    repository.commit("on main")
    repository.git("checkout", "-q", "branch")
    output = repository.finds("-aaa.py:13: table-still-read", base=main)
    assert "removed" not in output


@pytest.mark.full
def test_the_main_branch_of_the_server_is_the_base(repository: Repository, tmp_path: Path) -> None:
    main = repository.git("branch", "--show-current")
    run("git", "clone", "-q", "--bare", repository.path, tmp_path / "server", cwd=tmp_path)
    repository.git("remote", "add", "origin", str(tmp_path / "server"))
    repository.git("fetch", "-q")
    assert main == "main"
    repository.add("aaa", 'op.drop_table("api_key_usage")', BACK)
    repository.commit("committed, but not pushed")
    repository.finds("-aaa.py:13: table-still-read")


@pytest.mark.full
def test_without_git_every_revision_is_new(repository: Repository) -> None:
    repository.add("aaa", 'op.drop_table("api_key_usage")', BACK)
    repository.commit("committed")
    shutil.rmtree(repository.path / ".git")
    repository.finds(
        "Nothing is released yet that git knows of: every revision counts as new.",
        "-aaa.py:13: table-still-read",
    )


@pytest.mark.full
def test_without_squawk(repository: Repository, tmp_path: Path) -> None:
    """An environment without the development packages."""
    environment = tmp_path / "environment"
    shutil.copytree(repository.python.parent.parent, environment, symlinks=True)
    (environment / "bin/squawk").unlink()
    repository.python = environment / "bin/python"
    repository.add("aaa", "pass")
    repository.finds("squawk isn't installed here. Install the development packages: uv sync")


@pytest.mark.full
def test_help_names_the_option(repository: Repository) -> None:
    outcome = repository.lint("--help")
    assert outcome.code == 0
    assert "--base" in outcome.output
