"""Released versions of the template, made for the tests of updates, and a workspace of the first."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.commands import UV, Outcome, run
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

# The newest revision of a workspace of the default answers.
HEAD = "d2963fb0e14a"
NEW_REVISION = '''"""Give runs a note, for the test."""

import sqlalchemy as sa
from alembic import op

revision = "5d0c7a1be9f4"
down_revision = "2f6a91c0d7e3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("note", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("runs", "note")
'''
JOINED = f'''"""Join the chassis' and the examples' revisions."""

revision = "90b1e2c3d4f5"
down_revision = ("{HEAD}", "5d0c7a1be9f4")
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: it joins."""


def downgrade() -> None:
    """Nothing: it joins."""
'''
# What a team adds.
AGENT = '''"""Translates."""

from pydantic_ai import Agent

from chassis.agents.deps import Deps

AGENT = Agent(
    name="Translator",
    description="Says it in plain English.",
    deps_type=Deps,
    instructions="Say it in plain English.",
)
'''
TABLE = '''"""Tasks."""

import uuid

from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base


class Task(Base):
    """Something to do."""

    __tablename__ = "tasks"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    title: Mapped[str]
'''
CHANGES = {
    "0.2.0": "- A feature.\n\n### By hand\n\n- Rename the setting `OLD` to `NEW`.\n",
    "0.3.0": "- Runs have a note.\n\n### By hand\n\n- Look at `api/main.py`.\n",
    "0.4.0": "- Less is there.\n",
}
ANSWERS = {
    "project_name": 'Zoë’s "{{ braces }}" API',
    "project_slug": "zoes-api",
    "description": "{% raw %}: {#",
}


def git(folder: Path, *arguments: str) -> str:
    return run("git", *arguments, cwd=folder).output


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", message)


def change(folder: Path, name: str, before: str, after: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def release(template: Path, version: str) -> None:
    log = template / "CHANGELOG.md"
    text = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-11-01\n\n- The first.\n"
    if version in CHANGES:
        section = f"## [Unreleased]\n\n## [{version}] - 2026-11-20\n\n{CHANGES[version]}\n"
        text = log.read_text(encoding="utf-8").replace("## [Unreleased]\n\n", section, 1)
    log.write_text(text, encoding="utf-8")
    chassis = template / TEMPLATE_FOLDER / "chassis/__init__.py"
    told = chassis.read_text(encoding="utf-8")
    chassis.write_text(re.sub('__version__ = ".+"', f'__version__ = "{version}"', told), encoding="utf-8")
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "--allow-empty", "-m", version)
    git(template, "tag", "-a", f"v{version}", "-m", version)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with four released versions: features, a file renamed, one removed, a revision, a dependency."""
    folder = copy_of_template(tmp_path_factory.mktemp("releases") / "template")
    inside = folder / TEMPLATE_FOLDER
    # The chassis' own tests take minutes, and aren't what is tried here.
    for path in (inside / "chassis/tests").iterdir():
        if path.name not in {
            "__init__.py",
            "agents",
            "app.py",
            "conftest.py",
            "issuer.py",
            "service.py",
            "test_settings.py",
        }:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Nor are their types, which take a minute.
    change(
        inside,
        "pyproject.toml",
        'packages = ["agents", "api", "chassis", "db", "evals", "tests"]',
        'packages = ["db"]',
    )
    git(folder, "init", "--quiet")
    release(folder, "0.1.0")
    # A feature by a new question, a renamed file, and another version of a package.
    questions = json.loads((folder / "cookiecutter.json").read_text(encoding="utf-8"))
    items = list(questions.items())
    at = [name for name, _ in items].index("init_git")
    questions = dict([*items[:at], ("use_feature", True), *items[at:]])
    (folder / "cookiecutter.json").write_text(json.dumps(questions, indent=2), encoding="utf-8")
    (inside / "FEATURE.md").write_text("# Feature\n", encoding="utf-8")
    change(
        folder,
        "hooks/post_gen_project.py",
        '"use_kubernetes": [',
        '"use_feature": ["FEATURE.md"],\n    "use_kubernetes": [',
    )
    # By a name that sorts as the old one does.
    git(inside, "mv", "chassis/errors.py", "chassis/errors2.py")
    for path in inside.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        new = text.replace("chassis.errors", "chassis.errors2").replace(
            "from chassis import errors", "from chassis import errors2 as errors"
        )
        if new != text:
            path.write_text(new, encoding="utf-8")
    change(inside, "pyproject.toml", '"environment | errors |', '"environment | errors2 |')
    change(inside, "pyproject.toml", '"rich>=14,<16"', '"rich>=14.1,<16"')
    release(folder, "0.2.0")
    # A revision of the chassis, with the class that wants it.
    versions = inside / "db/migrations/versions"
    (versions / "2026_11_21_0700-5d0c7a1be9f4_note.py").write_text(NEW_REVISION, encoding="utf-8")
    (versions / "2026_11_21_0710-90b1e2c3d4f5_join.py").write_text(JOINED, encoding="utf-8")
    tables = inside / "chassis/runs/tables.py"
    text = tables.read_text(encoding="utf-8")
    text = re.sub(
        r'(class Run\(Base\):.*?\n    __tablename__ = "runs"\n)',
        r"\1\n    note: Mapped[str | None]\n",
        text,
        count=1,
        flags=re.DOTALL,
    )
    assert "note: Mapped" in text
    tables.write_text(text, encoding="utf-8")
    release(folder, "0.3.0")
    # A file that is gone, and lines that teams like to change too.
    (inside / "OPERATIONS.md").unlink()
    for name in ("README.md", "AGENTS.md"):
        text = (inside / name).read_text(encoding="utf-8").replace("OPERATIONS.md", "infra/README.md")
        (inside / name).write_text(text, encoding="utf-8")
    change(inside, "example.env", "\n", "\n# New in the template.\n")
    change(inside, ".github/workflows/ci.yml", "timeout-minutes: 15", "timeout-minutes: 16")
    release(folder, "0.4.0")
    return folder


@pytest.fixture(scope="session")
def first(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of the first version, installed."""
    place = tmp_path_factory.mktemp("first")
    # Of a folder Cookiecutter takes what lies there, of an address what is asked for.
    address = f"git+file://{released}"
    options = ("--no-input", "--checkout", "v0.1.0")
    output = cookiecutter(place, ANSWERS, template=address, options=options, check=True, cwd=place)
    assert "ok  Verify" in output.output
    return Workspace(place / "zoes-api")


@pytest.fixture
def ours(first: Workspace, tmp_path: Path) -> Workspace:
    """A clone of it, with packages of its own where a test installs."""
    git(tmp_path, "clone", "--quiet", str(first.path), "ours")
    return Workspace(tmp_path / "ours")


def install(workspace: Workspace) -> None:
    workspace.run(str(UV), "sync", "--locked")


def update(workspace: Workspace, *arguments: str, python: Path, check: bool = True) -> Outcome:
    own = workspace.path / ".venv/bin/python"
    program = str(own if own.exists() else python)
    return workspace.run(
        program, "-m", "chassis", "update", *arguments, env={"UV": str(UV)}, check=check, timeout=900
    )


def python_of(workspace: Workspace) -> Path:
    return workspace.path / ".venv/bin/python"
