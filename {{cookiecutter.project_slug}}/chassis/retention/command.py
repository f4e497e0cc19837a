"""What belongs to somebody, by command: `python -m chassis data export OWNER` and `erase OWNER --yes`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

from sqlalchemy.exc import DBAPIError

from chassis.database.engine import Sessions, async_engine, session_factory
from chassis.keys.shared import explain
from chassis.retention import belongings
from chassis.settings import ChassisError


async def _run(options: argparse.Namespace) -> None:
    engine = async_engine()
    try:
        await (_erase if options.erases else _export)(session_factory(engine), options)
    finally:
        await engine.dispose()


async def _export(sessions: Sessions, options: argparse.Namespace) -> None:
    async with aclosing(belongings.export(sessions, options.owner)) as lines:  # type: ignore[type-var]
        async for line in lines:
            print(line)


async def _erase(sessions: Sessions, options: argparse.Namespace) -> None:
    if not options.yes:
        raise ChassisError(
            f"This deletes all that is kept of {options.owner!r}, for good. If that is what you want, add --yes."
        )
    count = await belongings.erase(sessions, options.owner, with_usage=options.with_usage)
    print(f"Erased: {count} conversations of {options.owner!r}, and all else that belonged to it.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chassis data", description="All that belongs to somebody."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="print it, a document of JSON in each line")
    erase = commands.add_parser("erase", help="delete it, for good")
    for command, erases in ((export, False), (erase, True)):
        command.set_defaults(erases=erases)
        command.add_argument("owner", help="a key's id, or user: and what the issuer calls the person")
    erase.add_argument("--yes", action="store_true", help="really do it")
    erase.add_argument(
        "--with-usage", action="store_true", help="also what was used by day, which limits go by"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        asyncio.run(_run(_parser().parse_args(arguments)))
    except DBAPIError as error:
        raise ChassisError(explain(error, "of what belongs to somebody")) from error
    return 0
