"""What the tools of every agent can reach: `RunContext[Deps]` as a tool's first parameter gets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@dataclass(frozen=True, slots=True)
class Deps:
    """One run's surroundings. Open a session only for as long as a statement takes."""

    sessions: async_sessionmaker[AsyncSession]
    run_id: UUID
    conversation_id: str | None
    # Who asks. A tool reads and writes only what is the owner's.
    owner: str
    # What the lifespan in api/main.py yields.
    resources: Mapping[str, Any] = field(default_factory=dict)
    # Whether the run may be begun again, in the background; see chassis/runs/once.py.
    in_background: bool = False
