"""Who calls: a machine that shows an API key, a person, or a machine for a person.

A key is `ak_ID_SECRET`. Of the secret only the SHA-256 is stored: it is 256 random bits, which nobody can
guess from a hash however fast the hash is, so the slow ones made for people's passwords would buy nothing.
"""

import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.keys import tables
from chassis.users.accounts import Account

KEY = re.compile(r"ak_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{64})")
KEY_ID = re.compile("[0-9a-f]{12}")
# So long a key that was revoked, or whose limits were changed, may go on as before.
CACHE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may run agents; under `owner`, the id of a key or of a person, all is kept that it writes.

    `accounts` are those that a run counts for: a key that acts for a person, and the person.
    """

    owner: str
    accounts: tuple[Account, ...]
    agents: frozenset[str] | None = None
    acts_for_users: bool = False
    manages_documents: bool = False

    @property
    def has_limits(self) -> bool:
        """Tell whether its runs are to be counted before they start."""
        return any(account.has_limits for account in self.accounts)

    def may_run(self, agent_id: str) -> bool:
        """Tell whether the agent is among those that the key is for."""
        return self.agents is None or agent_id in self.agents

    def acting_for(self, person: Account) -> Self:
        """Return the caller that this one is when it acts for the person."""
        return replace(
            self,
            owner=person.id,
            accounts=(*self.accounts, person),
            acts_for_users=False,
            manages_documents=False,
        )


ANONYMOUS = Caller("anonymous", (Account("anonymous"),), acts_for_users=True, manages_documents=True)


def hash_secret(secret: str) -> str:
    """Return what is stored of a key's secret."""
    return sha256(secret.encode()).hexdigest()


class Keys:
    """Finds the caller to a key, with a query only every CACHE_SECONDS."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        # Keys that exist only, so it can't grow from outside: id -> hash, caller, until when it counts.
        self._known: dict[str, tuple[str, Caller, float]] = {}

    async def find(self, key: str) -> Caller | None:
        """Return the caller whose key this is; None where it is unknown, revoked or expired."""
        if not (parts := KEY.fullmatch(key)):
            return None
        shown = hash_secret(parts["secret"])
        found = self._known.get(parts["id"])
        if found is None or found[2] < time.monotonic():
            found = await self._read(parts["id"])
        return found[1] if found and compare_digest(found[0], shown) else None

    async def read_account(self, key_id: str) -> Account | None:
        """Return the account of a key as it is now; None where it is unknown, revoked or expired."""
        found = await self._read(key_id)
        return found[1].accounts[0] if found else None

    async def _read(self, key_id: str) -> tuple[str, Caller, float] | None:
        async with self._sessions() as session:
            row = await session.get(tables.ApiKey, key_id)
        left = (
            (row.expires_at - datetime.now(UTC)).total_seconds() if row and row.expires_at else CACHE_SECONDS
        )
        if row is None or row.revoked_at or left <= 0:
            self._known.pop(key_id, None)
            return None
        agents = None if row.agents is None else frozenset(row.agents)
        account = Account(row.id, row.requests_per_minute, row.tokens_per_day, row.cost_per_day)
        caller = Caller(row.id, (account,), agents, row.acts_for_users, row.manages_documents)
        self._known[key_id] = (row.secret_hash, caller, time.monotonic() + min(left, CACHE_SECONDS))
        return self._known[key_id]
