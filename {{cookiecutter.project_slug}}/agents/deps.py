"""What the tools of every agent can reach: `RunContext[Deps]` as a tool's first parameter gets it."""

from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

# The run that a task works for, so that lines in the log can name it.
RUN_ID: ContextVar[UUID | None] = ContextVar("run_id", default=None)


@dataclass(frozen=True, slots=True)
class Deps:
    """One run's surroundings. Open a session only for as long as a statement takes."""

    sessions: async_sessionmaker[AsyncSession]
    run_id: UUID
    conversation_id: str | None
    # Who asks. A tool reads and writes only what is the owner's.
    owner: str
