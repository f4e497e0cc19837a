"""The chassis' commands: ``python -m chassis COMMAND``. Each loads only what it needs."""

import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from chassis import __version__
from chassis.settings import ChassisError
from chassis.update.digests import changed_files

HERE = Path(__file__).parent
COMMANDS = {
    "check": ("check", "all that CI checks: style, types, imports, migrations, tests"),
    "lint": ("lint.command", "see what a new revision does, and what it would break"),
    "evals": ("evals.command", "ask the agents the cases in evals/, and judge what they answer"),
    "verify": ("migrations.verify", "prove the migrations on a throw-away PostgreSQL"),
    "wait": ("database.wait", "wait until the database answers"),
    "roles": ("database.roles", "make the database's two roles, or change their passwords"),
    "keys": ("keys.command", "make, list and revoke API keys"),
    "users": ("keys.people", "show, limit and block the people who call"),
    "data": ("retention.command", "hand over, or erase, all that belongs to somebody"),
    "feedback": ("runs.feedback_command", "list what people think of answers"),
    "update": ("update.command", "bring over what is new in the template"),
    "ingest": ("knowledge.ingest", "give the knowledge agent documents"),
}


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield name, module and purpose of each command that no answer has left out."""
    for name, (module, purpose) in COMMANDS.items():
        if HERE.joinpath(*module.split(".")).with_suffix(".py").exists():
            yield name, f"chassis.{module}", purpose


def overview() -> Iterator[str]:
    """Yield the lines that tell what there is."""
    yield f"chassis {__version__}\n\nusage: python -m chassis COMMAND [--help]\n"
    yield from (f"  {name:9}{purpose}" for name, _, purpose in commands())
    if changed := list(changed_files(HERE)):
        yield "\nChanged here, which makes updates of the template harder:"
        yield from (f"  {name}" for name in changed)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; what its reader can mend is a line, and 1."""
    name, *rest = arguments or ("--help",)
    if name in {"-h", "--help", "help"}:
        print("\n".join(overview()))
        return 0
    if name == "--version":
        print(__version__)
        return 0
    modules = {known: module for known, module, _ in commands()}
    if name not in modules:
        print(f"There is no command {name!r}. There are: {', '.join(modules)}.", file=sys.stderr)
        return 2
    # A polite kill must stop what a command has started, such as a database.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = import_module(modules[name]).main(rest)
    except ChassisError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
