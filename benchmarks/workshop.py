"""The things that are compared: bakes, a bare Alembic project, and a database to migrate."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from measure import Cost, MeasurementError, cost_of

TEMPLATE = Path(__file__).resolve().parent.parent
SLUG = "agent-api"
UPGRADE = ["-c", "db/alembic.ini", "upgrade", "head"]

# Runs in a workspace's Python: a PostgreSQL that lives until its standard input is closed.
SERVE = """
import sys
from chassis.database import embedded
with embedded.throw_away() as url:
    print(url.render_as_string(hide_password=False), flush=True)
    sys.stdin.read()
"""


class Workshop:
    """A scratch folder with all that the measurements need, and the environment they run in."""

    def __init__(self, folder: Path) -> None:
        """Lay out the scratch `folder`: a one-file template and settings of its own for Cookiecutter."""
        self.folder = folder
        self.one_file = folder / "one-file"
        (self.one_file / "{{cookiecutter.project_slug}}").mkdir(parents=True)
        (self.one_file / "cookiecutter.json").write_text(f'{{"project_slug": "{SLUG}"}}\n')
        (self.one_file / "{{cookiecutter.project_slug}}" / "README.md").write_text(
            "# {{ cookiecutter.project_slug }}\n"
        )
        config = folder / "cookiecutter.yaml"
        config.write_text(f'replay_dir: "{folder}/replay"\ncookiecutters_dir: "{folder}/templates"\n')
        self.uv = find_uv()
        self.env = clean_environment() | {"COOKIECUTTER_CONFIG": str(config), "UV": self.uv}
        self._made = 0

    def bake(
        self, template: Path, *answers: str, extra: Mapping[str, str] | None = None
    ) -> tuple[Path, Cost]:
        """Bake into a new folder; return the workspace and what Cookiecutter took."""
        self._made += 1
        out = self.folder / f"out{self._made}"
        command: list[str | Path] = [sys.executable, "-m", "cookiecutter", "--no-input"]
        command += [template, "-o", out, *answers]
        cost = cost_of(command, self.folder, self.env | dict(extra or {}))
        return out / SLUG, cost

    def bake_once(self, template: Path, *answers: str) -> Cost:
        """Bake, throw the workspace away (that isn't measured), and return what Cookiecutter took."""
        workspace, cost = self.bake(template, *answers)
        shutil.rmtree(workspace.parent)
        return cost

    def verified_bake(self) -> Cost:
        """Bake with the default answers, apart from git: write, install, verify."""
        return self.bake_once(TEMPLATE, "init_git=no")

    def bake_by_hand(self) -> Cost:
        """Do what a person would do without the hook: write, install, migrate an empty database once."""
        workspace, cost = self.bake(TEMPLATE, "install=no", "init_git=no")
        cost += cost_of([self.uv, "sync"], workspace, self.env)
        # No database is named, so it is the embedded one, made anew in this workspace.
        cost += cost_of([alembic_of(workspace), *UPGRADE], workspace, self.env)
        shutil.rmtree(workspace.parent)
        return cost

    def bare_project(self, workspace: Path, url: str) -> Path:
        """Make what `alembic init` makes, with the workspace's tables and revisions, and return its folder.

        Of its env.py only the one line is changed that every project has to change.
        """
        project = self.folder / "bare"
        project.mkdir()
        cost_of([alembic_of(workspace), "init", "migrations"], project, self.env)
        shutil.copytree(workspace / "db" / "tables", project / "tables")
        shutil.copytree(workspace / "chassis", project / "chassis")  # whose tables are among them
        for module in (project / "tables").glob("*.py"):
            module.write_text(module.read_text().replace("from db.tables", "from tables"))
        shutil.copytree(
            workspace / "db/migrations/versions", project / "migrations/versions", dirs_exist_ok=True
        )
        replace(
            project / "alembic.ini", r"^sqlalchemy\.url = .*$", f"sqlalchemy.url = {url.replace('%', '%%')}"
        )
        replace(
            project / "migrations" / "env.py",
            r"^target_metadata = None$",
            "from tables import Base\ntarget_metadata = Base.metadata",
        )
        return project

    @contextmanager
    def database(self, workspace: Path) -> Iterator[str]:
        """Run an empty PostgreSQL while the block lasts and give its URL."""
        server = subprocess.Popen(
            [workspace / ".venv/bin/python", "-c", SERVE],
            cwd=workspace,
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None  # noqa: S101 -- for the type checker
            url = server.stdout.readline().strip()
            if not url:
                raise MeasurementError("The embedded PostgreSQL didn't start.")
            yield url
        finally:
            server.communicate()


def alembic_of(workspace: Path) -> Path:
    """Return the path of the workspace's own alembic command."""
    return workspace / ".venv" / "bin" / "alembic"


def replace(path: Path, pattern: str, text: str) -> None:
    """Replace the one line of the file that matches.

    Raises:
        MeasurementError: where there isn't exactly one.
    """
    changed, found = re.subn(pattern, lambda _: text, path.read_text(), flags=re.MULTILINE)
    if found != 1:
        raise MeasurementError(f"{path.name}: {found} lines match {pattern}, there should be one.")
    path.write_text(changed)


def find_uv() -> str:
    """Return the path of uv: beside this Python, else on PATH.

    Raises:
        MeasurementError: where there is none.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise MeasurementError("uv is missing. `make bench` installs it.")
    return uv


def clean_environment() -> dict[str, str]:
    """Return the environment without what would lead a run to another Python or another database."""
    foreign = re.compile(
        r"PYTHON.*|VIRTUAL_ENV.*|CONDA_.*|PG.*|DB_.*|DATABASE_URL|RUNTIME_ENV|COOKIECUTTER_.*"
    )
    return {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}


@contextmanager
def open_workshop() -> Iterator[Workshop]:
    """Give a workshop in a temporary folder that goes away with the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Workshop(Path(folder).resolve())
