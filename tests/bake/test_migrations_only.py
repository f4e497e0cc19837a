"""Only the migrations, for a repository that exists: nothing of it is written over, and its own check passes."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.belongings import files
from tests.support.command_blocks import broken_links, read_blocks, write_file
from tests.support.commands import UV, Outcome, run
from tests.support.releases import commit, git
from tests.support.servers import debian_server
from tests.support.workspaces import Workspace, cookiecutter

# What a service is made of, and migrations are not.
FOREIGN = ("fastapi", "pydantic", "pydantic_ai", "uvicorn", "starlette")
OPTIONS = ("--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
# Somebody's service: a package with models in several modules, on a base without naming conventions.
SHOP = {
    "README.md": "# Shop\n",
    "LICENSE": "All rights reserved.\n",
    ".gitignore": "*.pyc\n.venv/\n",
    "pyproject.toml": '[project]\nname = "shop"\nversion = "3.2"\nrequires-python = ">=3.11"\n'
    'dependencies = ["sqlalchemy>=2.1"]\n\n[tool.uv]\npackage = false\n',
    ".github/workflows/ci.yml": "name: Ours\non: push\njobs: {}\n",
    "scripts/serve.sh": "#!/bin/sh\nexec python -m shop\n",
    "tests/test_shop.py": "def test_nothing():\n    pass\n",
    "api/main.py": "print('theirs')\n",
    "shop/__init__.py": "",
    "shop/__main__.py": "import os\n\nprint('serving', os.environ.get('DATABASE_URL', '')[:10])\n",
    "shop/models/__init__.py": "from shop.models import orders, people\nfrom shop.models.base import Base\n\n"
    "__all__ = ['Base', 'orders', 'people']\n",
    "shop/models/base.py": "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase):\n    pass\n",
    "shop/models/people.py": """import enum

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from shop.models.base import Base


class Kind(enum.Enum):
    private = "private"
    company = "company"


class Person(Base):
    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("email"), CheckConstraint("name <> ''"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    kind: Mapped[Kind]
    orders: Mapped[list["Order"]] = relationship(back_populates="person")
""",
    "shop/models/orders.py": """import datetime
import decimal

from sqlalchemy import DateTime, ForeignKey, Index, Numeric, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from shop.models.base import Base
from shop.models.people import Person


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (Index("open_orders", "person_id", postgresql_where="sent_at IS NULL"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    total: Mapped[decimal.Decimal] = mapped_column(Numeric(12, 2), server_default="0")
    tags: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    extra: Mapped[dict] = mapped_column(JSONB)
    sent_at: Mapped[datetime.datetime | None] = mapped_column(DateTime(timezone=True), server_default=func.now())
    person: Mapped[Person] = relationship(back_populates="orders")
""",
}


@pytest.fixture
def address() -> Iterator[str]:
    """An empty database on Debian's server."""
    with debian_server() as server:
        env = server.new_database().env
        password = quote(env["DB_PASS"], safe="")
        yield f"postgresql+psycopg://{env['DB_USER']}:{password}@{env['DB_HOST']}:{env['DB_PORT']}/{env['DB_DATABASE']}"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name, text in SHOP.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "--quiet")
    commit(folder, "Theirs")
    return folder


def add(folder: Path, **answers: str) -> Outcome:
    told = {"project_slug": folder.name, "scope": "migrations", **answers}
    return cookiecutter(folder.parent, told, options=OPTIONS, check=False, cwd=folder.parent)


def test_by_itself_it_is_verified_and_has_no_service(tmp_path: Path) -> None:
    done = cookiecutter(tmp_path, {"scope": "migrations"}, cwd=tmp_path, check=True)
    assert "ok  Verify the migrations on PostgreSQL" in done.output
    assert "uvicorn" not in done.output
    assert "It has run on a real PostgreSQL." in done.output
    workspace = Workspace(tmp_path / "agent-api")
    top = {path.relative_to(workspace.path).parts[0] for path in workspace.files()}
    assert top == {".gitattributes", ".github", ".gitignore", "chassis", "db", "pyproject.toml", "scripts"}
    documents = [path for path in workspace.files() if path.suffix == ".md"]
    assert list(broken_links(workspace.path, documents)) == []
    text = "\n".join(path.read_text(encoding="utf-8") for path in workspace.files())
    assert not re.search(rf"^ *(import|from) ({'|'.join(FOREIGN)})\b", text, re.MULTILINE)
    for module in FOREIGN:
        assert workspace.run("python", "-c", f"import {module}", check=False).code == 1, module
    assert "All is well." in workspace.run("python", "-m", "chassis", "check").output
    assert git(workspace.path, "status", "--porcelain") == ""


def test_what_was_there_stays(shop: Path) -> None:
    """Files by the same names are listed, also those of folders that only a whole service has."""
    for name in ("db/README.md", "scripts/entrypoint.sh", "db/migrations/env.py"):
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        (shop / name).write_text("Theirs.\n", encoding="utf-8")
    commit(shop, "More")
    before = files(shop, without=[".git"])
    done = add(shop)
    assert done.code == 0, done.output
    after = files(shop, without=[".git"])
    assert {name: after.get(name) for name in before} == before
    listed = re.findall(
        r"^  (\S+)$", done.output.partition("are yours and stay as they are")[2], re.MULTILINE
    )
    assert listed == [
        ".gitignore",
        "db/README.md",
        "db/migrations/env.py",
        "pyproject.toml",
        "scripts/entrypoint.sh",
    ]
    assert "NOT checked" in done.output
    new = {name.partition("/")[0] for name in after.keys() - before.keys()}
    assert new - {".cruft.json"} == {".gitattributes", ".github", "chassis", "db"}
    assert git(shop, "log", "--format=%s").splitlines() == ["More", "Theirs"]
    # Once more changes nothing.
    again = add(shop)
    assert (again.code, files(shop, without=[".git"])) == (0, after)


@pytest.mark.full
def test_the_page_puts_it_together(shop: Path, shell_environment: dict[str, str], address: str) -> None:
    """db/ADDED.md to the letter, in somebody's repository with classes of their own."""
    before = files(shop, without=[".git"])
    assert add(shop).code == 0
    workspace = Workspace(shop)
    blocks = read_blocks(workspace.read("db/ADDED.md"), "db/ADDED.md")
    for block in blocks:
        if block.path:
            write_file(block, shop)
        elif block.is_commands:
            printed = run("bash", "-ec", block.text, cwd=shop, env=shell_environment, timeout=300).output
    assert "All is well." in printed
    with (shop / ".gitignore").open("a", encoding="utf-8") as file:
        file.write(".postgres/\n.postgres-*/\n")
    (revision,) = (shop / "db/migrations/versions").glob("*_first_tables.py")
    text = revision.read_text(encoding="utf-8")
    assert re.findall(r'op\.create_table\(\s*"(\w+)"', text) == ["people", "orders"]
    assert "All is well." in workspace.run("python", "-m", "chassis", "check").output
    for module in FOREIGN:
        assert workspace.run("python", "-c", f"import {module}", check=False).code == 1, module
    # A change of their classes becomes a revision that is right, and the next one has nothing to write.
    people = shop / "shop/models/people.py"
    people.write_text(people.read_text().replace("    email:", "    phone: Mapped[str | None]\n    email:"))
    workspace.alembic("revision", "--autogenerate", "-m", "Phone")
    (revision,) = (shop / "db/migrations/versions").glob("*_phone.py")
    upgrade = revision.read_text(encoding="utf-8").partition("def downgrade")[0]
    assert re.findall(r"op\.(\w+)\(", upgrade) == ["add_column"]
    workspace.alembic("upgrade", "head")
    assert (
        "nothing to write a revision for"
        in workspace.alembic("revision", "--autogenerate", "-m", "No").output
    )
    # The entrypoint migrates before it starts what is theirs.
    environment = {"DATABASE_URL": address, "MIGRATE_DB": "True", "WAIT_FOR_DB": "True"}
    environment["PATH"] = f"{shop / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    served = run(shop / "scripts/entrypoint.sh", "python", "-m", "shop", cwd=shop, env=environment).output
    assert served.index("Running upgrade") < served.index("serving postgresql")
    theirs = files(shop, without=[".git"])
    changed = {name for name in before if before[name] != theirs[name]}
    assert changed == {"pyproject.toml", ".gitignore", "shop/models/people.py"}


@pytest.mark.full
@pytest.mark.parametrize("of_another", [False, True])
def test_it_is_updated_as_a_service_is(released: Path, shop: Path, of_another: bool) -> None:
    """Also where the repository itself came from another template, whose file stays."""
    theirs = '{"template": "https://example.com/other.git", "commit": "a", "context": {"cookiecutter": {"name": "x"}}}'
    if of_another:
        (shop / ".cruft.json").write_text(theirs, encoding="utf-8")
        commit(shop, "From another template")
    address = f"git+file://{released}"
    options = (*OPTIONS, "--checkout", "v0.1.0")
    answers = {"project_slug": "shop", "scope": "migrations"}
    cookiecutter(shop.parent, answers, template=address, options=options, cwd=shop.parent, check=True)
    commit(shop, "Migrations")
    before = files(shop, without=[".git"])
    command = ("python3", "-m", "chassis", "update", "--no-check")
    done = run(*command, cwd=shop, env={"UV": str(UV)}, check=False)
    assert done.code == 0, done.output
    after = files(shop, without=[".git"])
    assert all(after[name] == before[name] for name in SHOP)
    assert not (shop / "FEATURE.md").exists()
    assert not (shop / "OPERATIONS.md").exists()
    assert '__version__ = "0.4.0"' in (shop / "chassis/__init__.py").read_text(encoding="utf-8")
    file = shop / ("chassis/.cruft.json" if of_another else ".cruft.json")
    assert json.loads(file.read_text(encoding="utf-8"))["context"]["cookiecutter"]["scope"] == "migrations"
    assert not of_another or (shop / ".cruft.json").read_text(encoding="utf-8") == theirs
    commit(shop, "Update")
    again = run(*command, cwd=shop, env={"UV": str(UV)})
    assert "Up to date" in again.output
