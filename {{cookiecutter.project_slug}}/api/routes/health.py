"""`/health` and `/ready`, for load balancers and people. They are open to all and tell no secret."""

from http import HTTPStatus

from fastapi import APIRouter, HTTPException

from api.services import ServicesOf

PUBLIC = True
router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Tell that the process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(services: ServicesOf) -> dict[str, str]:
    """Tell whether the database answers and is at the revision that this code needs."""
    problem, warning = await services.readiness.check()
    if problem:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, problem)
    return {"status": "ok"} | ({"warning": warning} if warning else {})
