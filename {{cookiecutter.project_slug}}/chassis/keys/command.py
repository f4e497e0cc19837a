"""API keys, by command: `python -m chassis keys create NAME`, `list` and `revoke ID`."""

import argparse
import secrets
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pkgutil import iter_modules

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from chassis.keys import shared
from chassis.keys.caller import CACHE_SECONDS, hash_secret
from chassis.keys.limits import TODAY
from chassis.keys.tables import ApiKey, ApiKeyUsage
from chassis.settings import WORKSPACE, ChassisError

# The folder whose modules are the agents that keys can be for. Importing them would take seconds.
AGENTS = WORKSPACE / "agents"
HEADINGS = ("ID", "NAME", "AGENTS", "LIMITS", "CREATED", "EXPIRES", "LAST USED", "TODAY", "STATE")


def create(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Store a new key and show it, which is the only time that anybody sees it."""
    known = sorted(module.name for module in iter_modules([str(options.folder)]))
    if unknown := [name for name in options.agents or () if name not in known]:
        raise ChassisError(f"There is no agent {', '.join(unknown)}. There are: {', '.join(known)}.")
    key_id, secret, days = secrets.token_hex(6), secrets.token_hex(32), options.expires_in_days
    key = ApiKey(
        id=key_id,
        name=options.name,
        secret_hash=hash_secret(secret),
        agents=options.agents,
        requests_per_minute=options.requests_per_minute,
        tokens_per_day=options.tokens_per_day,
        cost_per_day=options.cost_per_day,
        acts_for_users=options.acts_for_users,
        manages_documents=options.manages_documents,
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
    )
    session.add(key)
    session.commit()
    print("Keep this key safe, it can't be shown again:", file=sys.stderr)
    yield f"ak_{key_id}_{secret}"


def list_keys(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """Show all keys, the newest first, each with what it may do and what it has used today (UTC)."""
    days = select(func.max(ApiKeyUsage.day)).where(ApiKeyUsage.owner == ApiKey.id)
    last = days.correlate(ApiKey).scalar_subquery()
    today = (ApiKeyUsage.owner == ApiKey.id) & (ApiKeyUsage.day == TODAY)
    keys = select(ApiKey, ApiKeyUsage, last).outerjoin(ApiKeyUsage, today).order_by(ApiKey.created_at.desc())
    yield from shared.table([HEADINGS, *(_cells(*row) for row in session.execute(keys))])


def revoke(session: Session, options: argparse.Namespace) -> Iterator[str]:
    """End a key, for good."""
    now = func.coalesce(ApiKey.revoked_at, func.now())
    revoked = update(ApiKey).where(ApiKey.id == options.id).values(revoked_at=now).returning(ApiKey.id)
    if session.scalar(revoked) is None:
        raise ChassisError(f"There is no key {options.id!r}. See: python -m chassis keys list")
    session.commit()
    yield f"{options.id} is revoked: within {CACHE_SECONDS} seconds nobody can use it any more."


def _cells(key: ApiKey, used: ApiKeyUsage | None, last_used: object) -> tuple[str, ...]:
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return (
        key.id,
        key.name,
        ",".join(key.agents or ("all",)),
        shared.tell_limits(key),
        f"{key.created_at:%Y-%m-%d}",
        f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "-",
        str(last_used or "-"),
        shared.tell_usage(used),
        "revoked"
        if key.revoked_at
        else "expired"
        if expired
        else "valid, acts for users"
        if key.acts_for_users
        else "valid",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chassis keys", description="API keys for callers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("create", help="make a key and show it once")
    new.add_argument("name", type=_name, help="who or what it is for")
    new.add_argument("--agents", type=_names, metavar="ID,ID", help="the agents it may run (default: all)")
    shared.add_limits(new)
    new.add_argument("--acts-for-users", action="store_true", help="may name the person that it calls for")
    new.add_argument(
        "--manages-documents", action="store_true", help="may change the documents that are for all"
    )
    new.add_argument("--expires-in-days", type=shared.count, metavar="N", help="how long it is valid")
    new.set_defaults(command=create)
    commands.add_parser("list", help="show all keys").set_defaults(command=list_keys)
    end = commands.add_parser("revoke", help="end a key")
    end.add_argument("id", help="the key's id, as the list shows it")
    end.set_defaults(command=revoke)
    return parser


def _name(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise argparse.ArgumentTypeError("must be one line of text")
    return value.strip()


def _names(value: str) -> list[str]:
    return sorted({_name(name) for name in value.split(",")})


def main(arguments: Sequence[str], agents: Path = AGENTS) -> int:
    """Run the command; `agents` is the folder of those that keys can be for.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    options = _parser().parse_args(arguments, argparse.Namespace(folder=agents))
    return shared.run(options, "api_keys and api_key_usage")
