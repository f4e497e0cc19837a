"""What the routes work with: made when the service starts, handed to each request."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from agents.runs import Runner
from agents.store import DatabaseConversationStore
from api.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Services:
    """One of each for the whole process."""

    readiness: Readiness
    runner: Runner
    store: DatabaseConversationStore


def _services(request: Request) -> Services:
    return cast("Services", request.state.services)


ServicesOf = Annotated[Services, Depends(_services)]
