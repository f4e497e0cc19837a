"""People, by command: `python -m chassis users list`, `limit`, `block` and `unblock`."""

import argparse
from collections.abc import Iterator, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from chassis.keys import shared
from chassis.keys.limits import TODAY
from chassis.keys.tables import ApiKeyUsage
from chassis.users.accounts import CACHE_SECONDS, USER
from chassis.users.tables import ApiUser

HEADINGS = ("ID", "LIMITS", "LAST USED", "TODAY", "STATE")
LIMITS = ("requests_per_minute", "tokens_per_day", "cost_per_day")


def list_users(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Show who has run an agent or has limits of their own, with what each has used today (UTC)."""
    used = select(ApiKeyUsage.owner, func.max(ApiKeyUsage.day).label("last")).group_by(ApiKeyUsage.owner)
    days = used.where(ApiKeyUsage.owner.startswith(USER, autoescape=True)).subquery()
    today = (ApiKeyUsage.owner == func.coalesce(days.c.owner, ApiUser.id)) & (ApiKeyUsage.day == TODAY)
    people = (
        select(func.coalesce(days.c.owner, ApiUser.id).label("id"), ApiUser, days.c.last, ApiKeyUsage)
        .select_from(days)
        .join(ApiUser, ApiUser.id == days.c.owner, full=True)
        .outerjoin(ApiKeyUsage, today)
        .order_by("id")
    )
    lines = []
    for user_id, row, last, usage in session.execute(people):
        limits = shared.tell_limits(row) if row else "-"
        state = "blocked" if row and row.blocked_at else "-"
        lines.append((user_id.removeprefix(USER), limits, str(last or "-"), shared.tell_usage(usage), state))
    yield from shared.table([HEADINGS, *lines])


def limit(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Set what a person may use; what isn't said is as the settings say."""
    values = {name: getattr(options, name) for name in LIMITS}
    _write(session, options.id, **values)
    told = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in values.items() if value)
    yield f"{options.id}: {told or 'as the settings say'}, within {CACHE_SECONDS} seconds."


def block(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Let a person call no more. What was written stays."""
    _write(session, options.id, blocked_at=func.now())
    yield f"{options.id} is blocked: within {CACHE_SECONDS} seconds the service refuses this person."


def unblock(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Let a person call again."""
    _write(session, options.id, blocked_at=None)
    yield f"{options.id} may call again, within {CACHE_SECONDS} seconds."


def _write(session: Session, subject: str, **values: object) -> None:
    statement = insert(ApiUser).values(id=f"{USER}{subject}", **values)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
    session.commit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chassis users", description="People who call.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="show who called, and what each has used").set_defaults(
        command=list_users
    )
    for name, does, purpose in (
        ("limit", limit, "set what a person may use, in place of USER_... of the settings"),
        ("block", block, "let a person call no more"),
        ("unblock", unblock, "let a person call again"),
    ):
        one = commands.add_parser(name, help=purpose)
        one.add_argument("id", type=_subject, help="what the issuer calls the person, the token's `sub`")
        one.set_defaults(command=does)
        if does is limit:
            shared.add_limits(one)
    return parser


def _subject(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise argparse.ArgumentTypeError("must be one line of text")
    return value


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    return shared.run(_parser().parse_args(arguments), "api_users and api_key_usage")
