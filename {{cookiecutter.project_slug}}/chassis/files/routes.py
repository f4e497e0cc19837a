"""`/v1/attachments`: files for a question, which names them by their ids; and files again that were said."""

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from chassis.files.store import FileInfo, FileStore
from chassis.http.dependencies import from_state
from chassis.http.middleware import UploadRoute
from chassis.keys.authentication import CallerOf

FilesOf = Annotated[FileStore, from_state("files")]


class FileRoute(UploadRoute):
    """A route whose body is a file."""

    ADVICE = "Send a smaller file."


router = APIRouter(prefix="/v1/attachments", tags=["attachments"], route_class=FileRoute)

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
# Whatever is in a file, no browser may run it as ours.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=3600",
    "Vary": "Authorization, X-User-ID",
}


class FileView(BaseModel):
    """A file; its kind is what its contents say."""

    id: UUID
    name: str
    media_type: str
    bytes: int
    conversation_id: str | None


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra=BODY)
async def upload_file(
    request: Request,
    files: FilesOf,
    caller: CallerOf,
    name: Annotated[str | None, Query(max_length=1000, description="what to call it")] = None,
    content_type: Annotated[str, Header(include_in_schema=False)] = "",
) -> FileView:
    """Upload a file, as the body itself, for a question that is asked within a day."""
    if content_type.partition(";")[0].strip().lower().startswith("multipart/"):
        detail = "Send the file itself as the body, not a form: its name goes into the query, ?name=photo.png"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    data = await request.body()
    # What is a text is looked at as a whole.
    content = await run_in_threadpool(files.check, data, content_type, name)
    return _view(await files.add(caller.owner, content))


@router.get("/{file_id}")
async def read_file(file_id: UUID, files: FilesOf, caller: CallerOf) -> FileView:
    """Tell what is known of a file."""
    return _view(await _find(file_id, files, caller.owner))


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses={200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def download_file(file_id: UUID, files: FilesOf, caller: CallerOf) -> Response:
    """Send a file."""
    info = await _find(file_id, files, caller.owner)
    data = await files.read(file_id, caller.owner)
    if data is None:
        raise _no_file(file_id)
    disposition = f"attachment; filename*=UTF-8''{quote(info.name, safe='')}"
    headers = HEADERS | {"Content-Disposition": disposition, "Content-Type": info.media_type}
    return Response(data, headers=headers)


@router.delete("/{file_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_file(file_id: UUID, files: FilesOf, caller: CallerOf) -> None:
    """Delete a file. A message that shows it goes on naming it, to the model too."""
    if not await files.remove(file_id, caller.owner):
        raise _no_file(file_id)


async def _find(file_id: UUID, files: FileStore, owner: str) -> FileInfo:
    info = await files.info(file_id, owner)
    if info is None:
        raise _no_file(file_id)
    return info


def _view(info: FileInfo) -> FileView:
    return FileView(
        id=info.id,
        name=info.name,
        media_type=info.media_type,
        bytes=info.size,
        conversation_id=info.conversation_id,
    )


def _no_file(file_id: UUID) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no file {str(file_id)!r}.")
