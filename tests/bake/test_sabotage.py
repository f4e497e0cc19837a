"""What goes wrong: the bake fails, says where, and leaves nothing behind. And nothing of the user's gets in."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.marks import quick_are
from tests.support.servers import wait_until
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

TABLES = f"{TEMPLATE_FOLDER}/chassis/runs/tables.py"


@dataclass(frozen=True)
class Scene:
    """A copy of the template to spoil, and the folders in which a bake of it may write."""

    template: Path
    output: Path
    temporary: Path

    def edit(self, name: str, before: str, after: str) -> None:
        (path,) = self.template.glob(name.replace("[", "[[]"))
        text = path.read_text(encoding="utf-8")
        assert before in text, f"{name} has no {before!r} to spoil"
        path.write_text(text.replace(before, after, 1), encoding="utf-8")

    def assert_nothing_is_left(self) -> None:
        """No workspace, no process, and in the temporary folder no more than the locks that uv keeps."""
        assert list(self.output.iterdir()) == []
        assert processes_in(self.output, self.temporary) == []
        left = [path.name for path in self.temporary.iterdir()]
        assert [name for name in left if not re.fullmatch(r"uv-\w+\.lock|\.lockfile", name)] == []


def processes_in(*folders: Path) -> list[str]:
    """The processes that have to do with a folder, the embedded PostgreSQL above all."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if any(str(folder) in words for folder in folders):
            found.append(words)
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    for name in ("output", "temporary"):
        (tmp_path / name).mkdir()
    return Scene(copy_of_template(tmp_path / "template"), tmp_path / "output", tmp_path / "temporary")


REVISION = f"{TEMPLATE_FOLDER}/db/migrations/versions/*_tables_of_the_chassis.py"
INSTALL = "Install the packages"
VERIFY = "Verify the migrations on PostgreSQL"

# What is spoiled: (file, text, its replacement, the step that must be named, what else must be said)
SABOTAGE = {
    "revision-raises": (
        REVISION,
        '    """Apply the revision."""\n',
        '    """Apply the revision."""\n    raise RuntimeError("spoiled: postgresql://me:s3cret@host/db")\n',
        VERIFY,
        ("upgrade head", "spoiled"),
    ),
    "revision-raises-on-the-way-back": (
        REVISION,
        '    """Take the revision back."""\n',
        '    """Take the revision back."""\n    raise RuntimeError("spoiled")\n',
        VERIFY,
        ("downgrade base", "spoiled"),
    ),
    "downgrade-leaves-a-type": (
        REVISION,
        'name="run_status").drop(',
        'name="run_status").create(op.get_bind(), checkfirst=True) or print(',
        VERIFY,
        ("downgrade base", "left behind", "type public.run_status"),
    ),
    "sql-error": (
        REVISION,
        '    """Apply the revision."""\n',
        '    """Apply the revision."""\n    op.execute("SELECT spoiled FROM nowhere")\n',
        VERIFY,
        ("upgrade head", "nowhere"),
    ),
    "env-raises": (
        f"{TEMPLATE_FOLDER}/db/migrations/env.py",
        "config = context.config\n",
        'config = context.config\nraise RuntimeError("spoiled")\n',
        VERIFY,
        ("spoiled", "env.py"),
    ),
    "import-error-in-tables": (
        TABLES,
        "import uuid\n",
        "import uuid\nimport spoiled\n",
        VERIFY,
        ("No module named 'spoiled'",),
    ),
    "tables-differ": (
        TABLES,
        "    agent_id: Mapped[str]\n",
        "    agent_id: Mapped[str]\n    spoiled: Mapped[str]\n",
        VERIFY,
        ("check", "spoiled", "--autogenerate"),
    ),
    "two-heads": (
        REVISION,
        "",
        "",
        VERIFY,
        ("one head", "merge heads"),
    ),
    "no-such-dependency": (
        f"{TEMPLATE_FOLDER}/pyproject.toml",
        '"uvicorn>=',
        '"fastapi>=999999", "uvicorn>=',
        INSTALL,
        ("fastapi",),
    ),
}
QUICK = ("revision-raises", "downgrade-leaves-a-type", "no-such-dependency")


@pytest.mark.parametrize("case", quick_are(QUICK, {case: case for case in SABOTAGE}))
def test_a_spoiled_template_fails_the_bake_and_leaves_nothing(scene: Scene, case: str) -> None:
    name, before, after, step, says = SABOTAGE[case]
    if case == "two-heads":
        (first,) = scene.template.glob(name)
        text = first.read_text(encoding="utf-8").replace("2f6a91c0d7e3", "0123456789ab")
        first.with_name("2026_11_26_0701-0123456789ab_second.py").write_text(text, encoding="utf-8")
    scene.edit(name, before, after)
    outcome = cookiecutter(scene.output, template=scene.template, env={"TMPDIR": str(scene.temporary)})
    assert outcome.code == 1
    scene.assert_nothing_is_left()

    ours, _, _ = outcome.output.partition("What follows is Cookiecutter's own report")
    failed = ours.partition("FAILED  ")[2]
    assert failed.startswith(step), ours
    for words in says:
        assert words in failed, failed
    assert "s3cret" not in outcome.output
    assert len(failed.splitlines()) < 30, f"a wall of text:\n{failed}"
    assert max(map(len, failed.splitlines())) < 2000, failed
    assert "has migrated" not in outcome.output


@pytest.mark.full
def test_the_way_back_after_a_failure_needs_no_answer_typed_again(scene: Scene, tmp_path: Path) -> None:
    """The command that the failure prints, once the cause is mended, bakes with the same answers."""
    name = TABLES
    scene.edit(name, "import uuid\n", "import uuid\nimport spoiled\n")
    answers = {"project_name": "Zoë’s {braces} API", "project_slug": "come-back", "init_git": "no"}
    outcome = cookiecutter(scene.output, answers, template=scene.template)
    assert outcome.code == 1
    scene.edit(name, "import spoiled\n", "")

    again, keep, folder, by_hand = re.findall(
        r"^  (.+)$", outcome.output.partition("Your answers are kept.")[2], re.MULTILINE
    )[:4]
    arguments = shlex.split(again)
    assert shutil.which(arguments[0]), "the command isn't there to be run"
    assert "--keep-project-on-failure" in shlex.split(keep)
    assert shlex.split(folder) == ["cd", str(scene.output / "come-back")]
    assert by_hand.endswith("python -m chassis verify")
    done = subprocess.run(
        [sys.executable, "-m", "cookiecutter", *arguments[arguments.index("cookiecutter") + 1 :]],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Zoë’s" in Workspace(scene.output / "come-back").read("README.md")


@pytest.mark.parametrize(
    ("line", "seconds"),
    quick_are(
        ["verifying"],
        {
            "before installing": ("... Install", 0.0),
            "installing": ("... Install", 0.4),
            "before verifying": ("... Verify", 0.0),
            "verifying": ("... Verify", 0.7),
            "verifying on": ("... Verify", 1.4),
        },
    ),
)
def test_ctrl_c_leaves_nothing(scene: Scene, line: str, seconds: float) -> None:
    """As a terminal does, the signal goes to all processes of the group at once."""
    # The step lasts a while however fast the machine is.
    scene.edit(
        REVISION,
        '    """Apply the revision."""\n',
        '    """Apply the revision."""\n    __import__("time").sleep(3)\n',
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "cookiecutter", "--no-input", "-o", scene.output, scene.template],
        env={**os.environ, "TMPDIR": str(scene.temporary), "UV_CACHE_DIR": os.environ["UV_CACHE_DIR"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = ""
    for printed in process.stdout:
        seen += printed
        if printed.startswith(line):
            break
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    seen += process.stdout.read()  # until the hook, which has the same output, has ended too
    assert process.wait(60) != 0
    wait_until(lambda: processes_in(scene.output, scene.temporary) == [], 20)
    scene.assert_nothing_is_left()
    assert "Interrupted: nothing was left behind." in seen


def test_a_folder_that_exists_is_never_written_over(scene: Scene) -> None:
    mine = scene.output / "agent-api" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    outcome = cookiecutter(scene.output, {"install": "no"}, template=scene.template)
    assert outcome.code == 1
    assert "already exists" in outcome.output
    assert "Traceback" not in outcome.output
    assert list(mine.parent.rglob("*")) == [mine]
    assert mine.read_text(encoding="utf-8") == "mine"


@pytest.mark.full
def test_a_failure_removes_nothing_that_was_there_before(scene: Scene) -> None:
    """Even where the user insists on writing into a folder that exists."""
    scene.edit(TABLES, "import uuid\n", "import uuid\nimport spoiled\n")
    mine = scene.output / "agent-api" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    options = ("--no-input", "--overwrite-if-exists")
    outcome = cookiecutter(scene.output, template=scene.template, options=options)
    assert outcome.code == 1
    assert mine.read_text(encoding="utf-8") == "mine"
    assert not (mine.parent / ".existed-before").exists()


@pytest.mark.full
def test_nothing_of_the_users_shell_reaches_the_verification(scene: Scene, tmp_path: Path) -> None:
    """Stray modules, another environment, and above all a database of the user's."""
    shadow = 'raise SystemExit("a stray module was imported")\n'
    for name in ("json", "subprocess", "shutil", "re", "signal", "tempfile", "shlex", "time", "pathlib"):
        (scene.temporary / f"{name}.py").write_text(shadow, encoding="utf-8")
    path = tmp_path / "pythonpath"
    path.mkdir()
    for name in ("alembic", "sqlalchemy", "chassis", "db", "psycopg"):
        (path / f"{name}.py").write_text(shadow, encoding="utf-8")
    foreign = {
        "VIRTUAL_ENV": str(tmp_path / "elsewhere"),
        "UV_PROJECT_ENVIRONMENT": str(tmp_path / "elsewhere"),
        "PYTHONPATH": str(path),
        "PYTHONHOME": sys.base_prefix,
        "DATABASE_URL": "postgresql://nobody:s3cret@127.0.0.1:1/users_own",
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "1",
        "DB_USER": "nobody",
        "DB_DATABASE": "users_own",
        "PGHOST": "127.0.0.1",
        "PGPORT": "1",
        "PGOPTIONS": "-c default_transaction_read_only=on",
        "PGSERVICE": "users_own",
        "RUNTIME_ENV": "prd",
        "MIGRATE_DB": "perhaps",
        "ALEMBIC_CONFIG": "/nowhere/alembic.ini",
        "GIT_DIR": str(tmp_path / "elsewhere.git"),
    }
    # The workspace itself tells what arrives.
    scene.edit(
        f"{TEMPLATE_FOLDER}/chassis/migrations/verify.py",
        "import io\n",
        f"import os\nassert not set({sorted(foreign)!r}) & set(os.environ), sorted(os.environ)\nimport io\n",
    )
    environment = {**foreign, "TMPDIR": str(scene.temporary)}
    outcome = cookiecutter(scene.output, template=scene.template, env=environment)
    assert outcome.code == 0, outcome.output
    assert "has migrated a real PostgreSQL" in outcome.output
    assert (scene.output / "agent-api/.venv/bin/python").exists()
    assert (scene.output / "agent-api/.git/HEAD").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "elsewhere.git").exists()
    assert processes_in(scene.output, scene.temporary) == []
