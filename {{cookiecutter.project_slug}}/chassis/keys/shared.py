"""What commands that read the database share: their arguments, and words for what the database answers."""

import argparse
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from psycopg.errors import InsufficientPrivilege, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from chassis.database.connection import connect
from chassis.database.engine import sync_engine
from chassis.settings import ChassisError

WAIT_SECONDS = 5
MOST = 1_000_000_000
AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
MISSING = (UndefinedTable, UndefinedColumn)


def run(options: argparse.Namespace, tables: str) -> int:
    """Call `options.command` with a session and the options, print the lines it yields, and return 0.

    Args:
        options: the parsed arguments.
        tables: the names of the tables that it needs, for a message.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    try:
        with connect(sync_engine(), WAIT_SECONDS) as connection, Session(connection) as session:
            for line in options.command(session, options):
                print(line)
    except DBAPIError as error:
        raise ChassisError(explain(error, tables)) from error
    return 0


def explain(error: DBAPIError, tables: str) -> str:
    """Say what the database's error means, and what to do; `tables` are those that were needed."""
    if isinstance(error.orig, MISSING):
        return "The database has no such tables yet. Run: alembic -c db/alembic.ini upgrade head"
    if isinstance(error.orig, InsufficientPrivilege):
        return f"The service's role may not do that to the tables {tables}."
    return "The database failed: " + " ".join(str(error.orig).split())


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit what may be used."""
    parser.add_argument("--requests-per-minute", type=count, metavar="N", help="runs that may start")
    parser.add_argument(
        "--tokens-per-day", type=count, metavar="N", help="tokens that runs may use, UTC days"
    )
    parser.add_argument("--cost-per-day", type=cost, metavar="USD", help="what runs may cost, UTC days")


def tell_limits(row: Any) -> str:
    """Return the limits of a row as a list shows them, or a dash."""
    limits = (
        (row.requests_per_minute, "runs/min"),
        (row.tokens_per_day, "tokens/day"),
        (row.cost_per_day, "USD/day"),
    )
    return ", ".join(f"{limit} {unit}" for limit, unit in limits if limit) or "-"


def tell_usage(used: Any) -> str:
    """Return the usage of a day as a list shows it, or a dash."""
    return (
        f"{used.runs} runs, {used.input_tokens + used.output_tokens} tokens, {used.cost:.2f} USD"
        if used
        else "-"
    )


def table(lines: Iterable[Sequence[str]]) -> Iterable[str]:
    """Yield the lines with their cells one below the other."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def count(value: str) -> int:
    """Read a number of something."""
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= MOST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST}, not {value!r}")
    return int(value)


def cost(value: str) -> Decimal:
    """Read an amount in USD."""
    if not AMOUNT.fullmatch(value) or not (amount := Decimal(value)):
        raise argparse.ArgumentTypeError(f"must be an amount in USD, such as 2.50, not {value!r}")
    return amount
