"""`/health` and `/ready`, for load balancers and people. They are open to all and tell no secret."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from chassis import __version__
from chassis.health.readiness import Readiness
from chassis.http.dependencies import from_state
from chassis.runs.views import RunnerOf

PUBLIC = True
ReadinessOf = Annotated[Readiness, from_state("readiness")]

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Tell that the process lives, and which version of the template its chassis is of."""
    return {"status": "ok", "chassis": __version__}


class RunsView(BaseModel):
    """How many runs are underway in the process that answers, and how many it carries."""

    underway: int
    at_most: int


class ReadyView(BaseModel):
    """A process that can do its work."""

    status: Literal["ok"] = "ok"
    runs: RunsView
    warning: str | None = None


@router.get("/ready", response_model_exclude_none=True)
async def ready(readiness: ReadinessOf, runner: RunnerOf) -> ReadyView:
    """Tell whether the database answers and is at the revision that this code needs, and how much is underway.

    One that has no room for another run stays ready: it answers everything else, and what it has begun.
    """
    problem, warning = await readiness.check()
    if problem:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, problem)
    runs = RunsView(underway=len(runner.underway), at_most=runner.at_most)
    return ReadyView(runs=runs, warning=warning or None)
