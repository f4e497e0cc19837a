"""What the routes work with: made when the service starts, handed to each request."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from agents.callers import Keys
from agents.runs import Runner
from agents.store import DatabaseConversationStore
from api.readiness import Readiness
from api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class Services:
    """One of each for the whole process."""

    settings: ApiSettings
    sessions: async_sessionmaker[AsyncSession]
    readiness: Readiness
    keys: Keys
    runner: Runner
    store: DatabaseConversationStore


# Asynchronous, since FastAPI calls plain functions in threads.
async def _services(request: Request) -> Services:
    return cast("Services", request.state.services)


ServicesOf = Annotated[Services, Depends(_services)]
