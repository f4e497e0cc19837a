"""What routes are given: whatever the service made when it started, by its name in the lifespan's state."""

from typing import Annotated, Any

from fastapi import Depends, Request

from chassis.database.engine import Sessions
from chassis.http.settings import ApiSettings


def from_state(name: str) -> Any:
    """Make the dependency that is given what the lifespan yielded under this name."""

    # Asynchronous, since FastAPI calls plain functions in threads.
    async def find(request: Request) -> Any:
        return getattr(request.state, name)

    return Depends(find)


SettingsOf = Annotated[ApiSettings, from_state("settings")]
SessionsOf = Annotated[Sessions, from_state("sessions")]
