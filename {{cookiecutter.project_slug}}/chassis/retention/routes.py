"""`/v1/me/data`: all that belongs to the caller, to take along or to erase."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from chassis.http.dependencies import SessionsOf
from chassis.keys.authentication import CallerOf
from chassis.retention import belongings

router = APIRouter(prefix="/v1/me", tags=["data"])


class JsonLines(StreamingResponse):
    """A document of JSON in each line."""

    media_type = "application/x-ndjson"


@router.get("/data", response_class=JsonLines)
async def export_data(sessions: SessionsOf, caller: CallerOf) -> JsonLines:
    """Send everything that is kept of the caller: conversations, runs, usage, and what agents have recorded.

    Each line is a document of its own, whose `kind` tells what it is.
    """

    async def lines() -> AsyncIterator[str]:
        async for line in belongings.export(sessions, caller.owner):
            yield f"{line}\n"

    return JsonLines(lines(), headers={"Content-Disposition": 'attachment; filename="data.ndjson"'})


@router.delete("/data", status_code=HTTPStatus.NO_CONTENT)
async def erase_data(sessions: SessionsOf, caller: CallerOf) -> None:
    """Delete everything that is kept of the caller, for good. What was used by day stays, without any contents."""
    await belongings.erase(sessions, caller.owner)
