"""Finish the workspace that Cookiecutter has just written: tidy, install, verify, start git, say what is next.

How each is done is in `bake/`. Standard library only, Python 3.10 or newer, on Linux, macOS and Windows.
"""

import os
import sys

CALL = {{ cookiecutter | called | literal }}
# Cookiecutter leaves the rendered hook, answers and all, in the temporary folder. No module that lies there, nor one
# on the user's PYTHONPATH, may stand in for the standard library's.
os.remove(__file__)
_OUTSIDE = [os.path.dirname(__file__), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
sys.path[:] = [CALL["hooks"], *(path for path in sys.path if path not in _OUTSIDE)]
sys.dont_write_bytecode = True

# ruff: noqa: E402
import fnmatch
import json
import re
import tempfile
import time
from pathlib import Path

from bake import environment, messages, origin, processes, repository
from bake.install import install
from bake.notes import CRUFT, CRUFT_BESIDE, LOCK, Notes, remove_all

ANSWERS = json.loads({{ cookiecutter | jsonify | jsonify }})

# The one place where answers remove files: answer that was "no" -> what goes.
REMOVED = {
    "use_assistant": ["agents/assistant.py", "evals/assistant.yaml", "tests/test_assistant.py"],
    "use_incidents": [
        "agents/incidents.py",
        "api/routes/incidents.py",
        "db/tables/incidents.py",
        "db/migrations/versions/2026_11_26_0710-7c0e5b9d2a41_incidents.py",
        "db/migrations/versions/2026_11_26_0730-b83d6f1e4c95_incidents_and_knowledge.py",
        "db/migrations/versions/2026_11_27_1610-5c1f8a3e6d92_incidents_and_people.py",
        "db/migrations/versions/2026_11_27_1630-d2963fb0e14a_examples_and_people.py",
        "evals/incidents.yaml",
        "tests/test_incidents.py",
    ],
    "use_knowledge": [
        "agents/knowledge.py",
        "chassis/knowledge",
        "chassis/tests/agents/knowledge.py",
        "chassis/tests/test_bucket.py",
        "chassis/tests/test_documents.py",
        "chassis/tests/test_knowledge.py",
        "db/migrations/versions/2026_11_26_0720-e4a1c8f70b36_knowledge.py",
        "db/migrations/versions/2026_11_26_0730-b83d6f1e4c95_incidents_and_knowledge.py",
        "db/migrations/versions/2026_11_27_1605-c6f20d8e9a57_documents_of_owners.py",
        "db/migrations/versions/2026_11_27_1620-a07e4b95c3d8_knowledge_and_people.py",
        "db/migrations/versions/2026_11_27_1630-d2963fb0e14a_examples_and_people.py",
        "evals/documents",
        "evals/knowledge.yaml",
        "tests/test_knowledge.py",
    ],
    "use_chat_page": [
        "chassis/chat",
        "chassis/tests/chat_page.py",
        "chassis/tests/openid.py",
        "chassis/tests/test_chat_approval.py",
        "chassis/tests/test_chat_files.py",
        "chassis/tests/test_chat_failures.py",
        "chassis/tests/test_chat_feedback.py",
        "chassis/tests/test_chat_messages.py",
        "chassis/tests/test_chat_page.py",
        "chassis/tests/test_chat_sign_in.py",
    ],
    "use_openai_api": [
        "chassis/protocols/openai*.py",
        "chassis/protocols/response*.py",
        "chassis/tests/test_openai_api.py",
        "chassis/tests/test_openai_files.py",
        "chassis/tests/test_responses.py",
    ],
    "use_ag_ui": ["chassis/protocols/ag_ui.py", "chassis/tests/test_ag_ui.py"],
    "use_prometheus": [
        "chassis/telemetry/prometheus.py",
        "chassis/tests/test_prometheus.py",
        "deploy/kubernetes/components/prometheus",
    ],
    "use_ecs": ["infra", ".github/workflows/deliver.yml"],
    "use_single_machine": ["deploy/compose"],
    "use_kubernetes": ["deploy/kubernetes"],
    "use_github_actions": [".github", "infra/delivery.yaml"],
}
# And answer that was "yes" -> what goes: the joint of one example's revision, where there is one for both.
REPLACED = {
    "use_incidents": ["db/migrations/versions/2026_11_27_1620-a07e4b95c3d8_knowledge_and_people.py"],
    "use_knowledge": ["db/migrations/versions/2026_11_27_1610-5c1f8a3e6d92_incidents_and_people.py"],
}
# What the answer "migrations" leaves. All else is a service's.
MIGRATIONS = [
    ".gitattributes",
    ".github/scripts",
    ".github/workflows/comment.yml",
    ".github/workflows/migrations.yml",
    ".github/workflows/update.yml",
    ".gitignore",
    "chassis/__init__.py",
    "chassis/__main__.py",
    "chassis/check.py",
    "chassis/database",
    "chassis/digests.txt",
    "chassis/lint",
    "chassis/migrations",
    "chassis/settings.py",
    "chassis/update",
    "db",
    "pyproject.toml",
    "scripts/entrypoint.sh",
]
# What is of use to nobody else, and what of the above is a service's all the same.
ONLY_MIGRATIONS = [".github/workflows/migrations.yml", "db/ADDED.md", "db/migrations/versions/.gitkeep"]
ONLY_SERVICE = ["db/migrations/versions/*.py", "db/migrations/versions/*.sql", "db/tables/chassis.py", "db/tables/incidents.py"]
# So long may a folder's name be if the embedded PostgreSQL is to have a socket in it, whose name has 107 characters at most.
SOCKET_ROOM = 80


def main() -> int:
    """Run the steps that the answers ask for, and return the exit code."""
    began = time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # where a terminal can't show what a user may answer
    notes = Notes(Path.cwd())
    temporary = ""
    processes.listen()
    try:
        notes.at_work("hook", os.getpid())
        if not notes.begun():
            return 130  # interrupted before this began
        written, theirs = keep_what_is_wanted(notes)
        scripts = make_scripts_executable(written)
        if rendered_by_update_tool(notes.workspace):
            notes.forget()
            return 0
        uv = environment.find_uv()
        # Into packages of somebody else's choice nothing is installed.
        if ANSWERS["install"] and "pyproject.toml" not in written and ANSWERS["scope"] == "migrations":
            ANSWERS["install"] = False
        if ANSWERS["install"]:
            temporary = make_temporary(notes)
            install_and_verify(notes, uv, environment.for_programs(temporary or tempfile.gettempdir()))
            written += [LOCK] if Path(LOCK).exists() else []
        # cruft writes its own after this hook; an update wants it committed by then.
        state = CALL.get("cruft_file") or origin.cruft_state(ANSWERS, CALL)
        file = CRUFT if not Path(CRUFT).exists() or origin.is_ours(Path(CRUFT)) else CRUFT_BESIDE
        if state and not notes.was_there(file):
            Path(file).write_text(state, encoding="utf-8")
            written.append(file)
        if ANSWERS["init_git"]:
            repository.start(notes, written, scripts)
        processes.ignore()
        notes.forget()
    except processes.StepError as failure:
        processes.ignore()
        messages.report(failure, ANSWERS, CALL, notes.workspace)
        if CALL.get("keep_project_on_failure"):
            notes.forget()
        elif not notes.created:  # which Cookiecutter removes
            notes.restore()
            processes.say("The folder is again what it was before.", error=True)
        return 1
    except KeyboardInterrupt:
        if not notes.created or not notes.guard:  # what Cookiecutter made, the guard removes
            notes.restore()
        processes.say(
            f"\nInterrupted: {'nothing was left behind' if notes.created else 'the folder is what it was before'}.",
            error=True,
        )
        return 130
    finally:
        processes.ignore()
        if temporary:
            processes.end_servers(Path(temporary))
            remove_all(Path(temporary))
        notes.at_work("hook", None)
    messages.answers_file(notes.workspace).unlink(missing_ok=True)
    seconds = time.monotonic() - began
    if ANSWERS["scope"] == "migrations":
        messages.say_what_is_to_be_merged(ANSWERS, notes.workspace, theirs, seconds)
    else:
        messages.say_what_is_next(ANSWERS, notes.workspace, uv, seconds)
    return 0


def keep_what_is_wanted(notes: Notes) -> "tuple[list[str], list[str]]":
    """Take back what the answers switched off, or the user didn't want written over.

    Return what this bake has written, and of what the user had such a file.
    """
    off = [path for answer, paths in REMOVED.items() if not ANSWERS[answer] for path in paths]
    off += [path for answer, paths in REPLACED.items() if ANSWERS[answer] for path in paths]
    only_migrations = ANSWERS["scope"] == "migrations"
    off += ONLY_SERVICE if only_migrations else ONLY_MIGRATIONS
    unwanted = {
        name
        for name in notes.template()
        if is_in(name, off) or (only_migrations and not is_in(name, MIGRATIONS))
    }
    # Cookiecutter forgets this option where it copies without rendering.
    theirs = {
        name for name in notes.template() if CALL.get("skip_if_file_exists") and notes.was_there(name)
    } - unwanted
    notes.put_back(unwanted | theirs)
    written = set(notes.template()) - unwanted - theirs
    return sorted(name for name in written if Path(name).is_file()), sorted(theirs)


def is_in(name: str, paths: "list[str]") -> bool:
    """Whether a file is one of these, or in one of these folders."""
    return any(fnmatch.fnmatchcase(name, path) or name.startswith(f"{path}/") for path in paths)


def make_scripts_executable(written: "list[str]") -> "list[str]":
    """Let whoever may read a script run it: a template from a zip file, or from some file systems, has lost that."""
    scripts = [name for name in written if Path(name).read_bytes()[:2] == b"#!"]
    for name in scripts:
        mode = Path(name).stat().st_mode
        Path(name).chmod(mode | (mode & 0o444) >> 2)
    return scripts


def rendered_by_update_tool(workspace: Path) -> bool:
    """Whether cruft renders this for a comparison, into <temporary folder>/tmp????????/<slug>.

    `_commit` is cruft's alone; with `cruft create` the folder is one that the user chose.
    """
    if "_commit" not in ANSWERS:
        return False
    parent = workspace.parent
    return parent.parent == Path(tempfile.gettempdir()).resolve() and bool(
        re.fullmatch(r"tmp\w{8}", parent.name)
    )


def make_temporary(notes: Notes) -> str:
    """Make a temporary folder for all that is run, in which nothing of it can be lost."""
    folder = tempfile.mkdtemp(prefix="bake-")
    if len(folder) > SOCKET_ROOM:
        os.rmdir(folder)
        return ""
    notes.temporary(folder)
    os.chmod(folder, 0o711)  # as root, PostgreSQL runs as another user, who has to pass through
    return folder


def install_and_verify(notes: Notes, uv: "str | None", variables: "dict[str, str]") -> None:
    """Install the packages, and prove on a real PostgreSQL that the migrations work."""
    if not notes.created:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"  # in caches that were there

    def run(title: str, command: "list[str]", repeat: str) -> None:
        processes.run(title, command, repeat, variables, lambda process: notes.at_work("child", process))

    notes.note_venv()
    python = install(run, notes.workspace, uv, ANSWERS["python_version"])
    command = environment.by_hand("python -m chassis verify")
    run("Verify the migrations on PostgreSQL", [python, "-m", "chassis", "verify"], command)
    if notes.created:
        for cache in [*Path("db").rglob("__pycache__"), *Path("chassis").rglob("__pycache__")]:
            remove_all(cache)


sys.exit(main())
