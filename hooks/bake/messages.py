"""What the hook says at its end: what is next, or what failed and the way back without typing the answers again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bake.environment import astray, by_hand
from bake.install import with_uv_by_hand
from bake.processes import StepError, clear, say

KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
    "bedrock": "AWS_PROFILE",
}


def tail(printed: str, lines: int) -> str:
    """Return the last lines that say something, with passwords in addresses blotted out."""
    safe = re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1:***@", printed)
    return "\n".join([line for line in safe.splitlines() if line.strip()][-lines:])


def report(failure: StepError, answers: dict[str, Any], call: dict[str, Any], workspace: Path) -> None:
    """Say what failed, how to see it again, and how to come back."""
    title, repeat, printed = failure.args
    say(f"{clear()}\nFAILED  {title}\n\n{tail(printed, 12)}\n", error=True)
    command, keep = way_back(answers, call, workspace)
    say("Your answers are kept. To try again, once the cause is mended:", error=True)
    say(f"  {shlex.join(command)}", error=True)
    if keep:
        say("To look into it, keep the folder and repeat the step by hand:", error=True)
        say(f"  {shlex.join([*command[:-1], *keep, command[-1]])}", error=True)
    else:
        say(
            "To look into it, repeat the step by hand in a folder that was written with install=no:",
            error=True,
        )
    say(f"  cd {shlex.quote(str(workspace))}\n  {repeat}\n", error=True)
    say("What follows is Cookiecutter's own report that a hook failed.", error=True)


def way_back(answers: dict[str, Any], call: dict[str, Any], workspace: Path) -> tuple[list[str], list[str]]:
    """Keep the answers in a file of their own, and return the command that uses it, and what keeps the folder."""
    cruft = "_commit" in answers
    command = ["cruft", "create"] if cruft else ["cookiecutter"]
    if not shutil.which(command[0]):
        command[:0] = ["uvx"] if shutil.which("uvx") else [sys.executable, "-m"]
    typed = {name: value for name, value in answers.items() if not name.startswith("_")}
    if cruft:
        # cruft renders what it is given.
        raw = {name: raw_text(value) for name, value in typed.items()}
        command += ["--no-input", "--extra-context-file", keep_answers(raw, workspace)]
    else:
        command += ["--replay-file", keep_answers({"cookiecutter": answers}, workspace)]
    command += ["--output-dir", str(workspace.parent)]
    for name in ("checkout", "directory", "config_file"):
        if value := call.get(name) or answers.get(f"_{name}"):
            command += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("default_config", "overwrite_if_exists", "skip_if_file_exists"):
        if call.get(name) is True:
            command.append(f"--{name.replace('_', '-')}")
    command.append(template_of(answers, call, workspace))
    return command, [] if cruft else ["--keep-project-on-failure"]


def raw_text(value: Any) -> Any:
    """Return a value that stays what it is when it is rendered."""
    return "{% raw %}" + value + "{% endraw %}" if isinstance(value, str) and "{" in value else value


def template_of(answers: dict[str, Any], call: dict[str, Any], workspace: Path) -> str:
    """Return the template's address, as it can be used from any folder."""
    named = str(answers.get("_template", ""))
    here = Path(os.environ.get("PWD", workspace.parent), named)
    return str(call.get("template_folder") or (here if here.exists() else named))


def answers_file(workspace: Path) -> Path:
    """Return where the answers for this folder are kept: where Cookiecutter keeps its own."""
    name = f"{workspace.name}-{hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]}.json"
    return Path.home() / ".cookiecutter_replay" / name


def keep_answers(answers: dict[str, Any], workspace: Path) -> str:
    """Write the answers to a file that no other bake writes to, and return its path."""
    text = json.dumps(answers, ensure_ascii=False, indent=2)
    try:
        file = answers_file(workspace)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError):  # no home, or one that can't be written to
        file = Path(tempfile.mkdtemp(prefix="answers-")) / "answers.json"
        file.write_text(text, encoding="utf-8")
    return str(file)


def say_what_is_to_be_merged(
    answers: dict[str, Any], workspace: Path, theirs: list[str], seconds: float
) -> None:
    """Say, where only the migrations were added to what exists, what of it is a person's to put together."""
    done = f"\nAdded in {seconds:.1f} s to {workspace.name}: db/, chassis/, scripts/entrypoint.sh and what goes with them."
    proven = (
        "It has run on a real PostgreSQL." if answers["install"] else "NOT checked: it is not installed yet."
    )
    say(f"{done} {proven}\n")
    if theirs:
        say("These are yours and stay as they are. What of ours belongs in them is in db/ADDED.md:")
        for name in theirs:
            say(f"  {name}")
        say("")
    say("What is left to do by hand, in order: db/ADDED.md")


def say_what_is_next(answers: dict[str, Any], workspace: Path, uv: str | None, seconds: float) -> None:
    """Print the next commands, right for the answers given and for the shell that they are typed into."""
    slug = answers["project_slug"]
    if answers["install"]:
        say(f"\nDone in {seconds:.1f} s: {slug} has migrated a real PostgreSQL up, down and up again.\n")
    else:
        say(f"\nWritten: {slug}. NOT checked: no package was installed, no migration has run.\n")
    here = Path(os.environ.get("PWD", workspace))
    near = workspace.relative_to(here) if here in workspace.parents else workspace
    say(f"  cd {shlex.quote(str(near))}")
    if leading := astray():
        say(f"  unset {' '.join(leading)}")
    if not answers["install"]:
        say(f"  {with_uv_by_hand(uv)}\n  {by_hand('python -m chassis verify')}")
    say(f"  {by_hand('alembic -c db/alembic.ini upgrade head')}")
    say(f"  {by_hand('uvicorn api.main:app')}")
    if leading:
        say("\nYour shell sets what is unset above: it would lead these commands elsewhere.")
    say(f"\nA demonstration model answers until {KEYS[answers['model_provider']]} is set.")
    say("Before you change a table, read db/README.md.")
