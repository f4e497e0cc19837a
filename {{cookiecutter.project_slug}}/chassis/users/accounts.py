"""What runs are counted for, and the people among those: found with their limits, or as blocked."""

import time
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.users.settings import UserSettings
from chassis.users.tables import ApiUser

# What a person's id begins with, so that no key and no person can have the same.
USER = "user:"
# So long somebody who was blocked, or whose limits were changed, may go on as before.
CACHE_SECONDS = 10
# More people than are likely to call one process within that time.
CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    """A key or a person, by its id, and the limits that hold for it; USD a day in `cost_per_day`."""

    id: str
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    cost_per_day: Decimal | None = None

    @property
    def has_limits(self) -> bool:
        """Tell whether its runs are to be counted before they start."""
        limits = (self.requests_per_minute, self.tokens_per_day, self.cost_per_day)
        return any(limit is not None for limit in limits)

    @property
    def is_person(self) -> bool:
        """Tell whether it is a person's."""
        return self.id.startswith(USER)


class Users:
    """Finds people's accounts, with a query for each only every CACHE_SECONDS."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], settings: UserSettings) -> None:
        """Take the limits that hold for whoever has none of their own."""
        self._sessions = sessions
        self._settings = settings
        # By the subject: the account, None for somebody who is blocked, and until when it counts.
        self._known: dict[str, tuple[Account | None, float]] = {}

    async def find(self, subject: str) -> Account | None:
        """Return the account of whom the issuer calls so; None where the person is blocked."""
        now = time.monotonic()
        if (known := self._known.get(subject)) and known[1] >= now:
            return known[0]
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        account = await self.read_account(f"{USER}{subject}")
        self._known[subject] = (account, now + CACHE_SECONDS)
        return account

    async def read_account(self, user_id: str) -> Account | None:
        """Return the account as it is now, by its id; None where the person is blocked."""
        async with self._sessions() as session:
            row = await session.get(ApiUser, user_id)
        if row and row.blocked_at:
            return None
        ours = row or ApiUser()
        return Account(
            user_id,
            ours.requests_per_minute or self._settings.requests_per_minute,
            ours.tokens_per_day or self._settings.tokens_per_day,
            ours.cost_per_day or self._settings.cost_per_day,
        )
