"""`/v1/documents`: what agents answer from: an owner's own documents, and those that are for all."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from anyio import from_thread
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pgvector import Vector
from pydantic import BaseModel
from pydantic_ai.exceptions import AgentRunError
from sqlalchemy import ColumnElement, Engine, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer
from sqlalchemy.orm.interfaces import ORMOption
from starlette.concurrency import run_in_threadpool

from chassis.database.engine import sync_engine
from chassis.errors import RunError
from chassis.http.dependencies import SessionsOf, from_state
from chassis.http.middleware import UploadRoute
from chassis.http.pagination import Cursor, Limit, after, encode_cursor
from chassis.keys.authentication import CallerOf
from chassis.keys.caller import Caller
from chassis.keys.limits import admit
from chassis.knowledge.embeddings import Embeddings, EmbeddingsError, current_embeddings
from chassis.knowledge.ingest import COLLECTION, IngestError, Ingestion, Place, Text
from chassis.knowledge.reading import UnreadableError
from chassis.knowledge.settings import KnowledgeSettings
from chassis.knowledge.tables import Document
from chassis.knowledge.worker import MAX_CHARS
from chassis.runs.errors import explain

T = TypeVar("T")
SettingsOf = Annotated[KnowledgeSettings, from_state("knowledge_settings")]


class LoopEmbeddings(Embeddings):
    """Makes vectors in the loop of the service from a thread beside it: a provider's client is bound to its loop."""

    def of_passages(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of texts that questions are compared with."""
        return self._vectors(from_thread.run(self.embedder.embed_documents, texts))


class DocumentRoute(UploadRoute):
    """A route whose body is a document."""

    ADVICE = "Send a smaller document, or give it to the command `python -m chassis ingest`."


router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=DocumentRoute)

Collection = Annotated[str, Path(pattern=COLLECTION)]
Name = Annotated[
    str, Path(pattern=r"^[^/\\\x00-\x1f\x7f]{1,200}$", description="what people read as the source")
]
Shared = Annotated[
    bool, Query(description="whether it is one for all, which takes a key made with --manages-documents")
]
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
# A document takes a process and some memory, and its vectors a thread: as many at once, others wait for their turn.
AT_ONCE = asyncio.Semaphore(2)


class DocumentView(BaseModel):
    """A document, whose passages agents find."""

    collection: str
    name: str
    shared: bool
    bytes: int
    updated_at: datetime


class DocumentList(BaseModel):
    """Documents, the last changed first; `next_cursor` is for the next page."""

    documents: list[DocumentView]
    next_cursor: str | None = None


class DocumentDetail(DocumentView):
    """A document, and what was read in it."""

    text: str


@router.get("")
async def list_documents(
    sessions: SessionsOf,
    caller: CallerOf,
    collection: Annotated[str | None, Query(max_length=64)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DocumentList:
    """List the caller's documents and those for all, as far as they came by this endpoint, the last changed first."""
    wanted: list[ColumnElement[bool]] = [
        Document.name.is_not(None),
        or_(Document.owner.is_(None), Document.owner == caller.owner),
    ]
    if collection is not None:
        wanted.append(Document.collection == collection)
    if cursor:
        wanted.append(after(cursor, Document.updated_at, Document.source))
    query = select(Document).where(*wanted).order_by(Document.updated_at.desc(), Document.source.desc())
    async with sessions() as session:
        rows = list(await session.scalars(query.limit(limit + 1)))
    page, more = rows[:limit], len(rows) > limit
    return DocumentList(
        documents=[DocumentView(**_view(row)) for row in page],
        next_cursor=encode_cursor(page[-1].updated_at, page[-1].source) if more else None,
    )


@router.put("/{collection}/{name}", openapi_extra=BODY, responses={201: {"model": DocumentView}})
async def put_document(
    collection: Collection,
    name: Name,
    request: Request,
    response: Response,
    sessions: SessionsOf,
    caller: CallerOf,
    settings: SettingsOf,
    shared: Shared = False,
) -> DocumentView:
    """Give agents a document, in place of the one with this name: Markdown, text, PDF, DOCX or HTML, as the body."""
    owner = _owner(caller, shared=shared)
    place = Place(owner, collection)
    source = place.source(name)
    async with sessions() as session:
        there = await session.scalar(select(Document.source).where(Document.source == source))
    data = await request.body()
    async with sessions.begin() as session:
        if owner is not None:
            await _check_room(session, owner, source, len(data), settings)
        if caller.has_limits:
            # Its vectors are paid for.
            await admit(session, caller)
    # It needs a connection that waits: the vectors are made by the same code as the command's.
    engine = sync_engine(sessions.engine.url, application_name="documents")
    try:
        async with AT_ONCE:
            await _explained(partial(_write, engine, place, name, data))
    finally:
        engine.dispose()
    if there is None:
        response.status_code = HTTPStatus.CREATED
    return DocumentView(**_view(await _find(sessions, source, collection, name)))


@router.get("/{collection}/{name}")
async def read_document(
    collection: Collection, name: Name, sessions: SessionsOf, caller: CallerOf, shared: Shared = False
) -> DocumentDetail:
    """Tell what was read in a document."""
    source = Place(None if shared else caller.owner, collection).source(name)
    row = await _find(sessions, source, collection, name, undefer(Document.text))
    return DocumentDetail(**_view(row), text=row.text or "")


@router.delete("/{collection}/{name}", status_code=HTTPStatus.NO_CONTENT)
async def delete_document(
    collection: Collection, name: Name, sessions: SessionsOf, caller: CallerOf, shared: Shared = False
) -> None:
    """Take a document away. Agents find nothing of it from then on."""
    source = Place(_owner(caller, shared=shared), collection).source(name)
    statement = delete(Document).where(Document.source == source).returning(Document.source)
    async with sessions.begin() as session:
        if await session.scalar(statement) is None:
            raise _no_document(collection, name)


def _owner(caller: Caller, *, shared: bool) -> str | None:
    if not shared:
        return caller.owner
    if not caller.manages_documents:
        detail = (
            "Documents for all are changed by a key that was made with --manages-documents: leave shared out."
        )
        raise HTTPException(HTTPStatus.FORBIDDEN, detail)
    return None


async def _check_room(
    session: AsyncSession, owner: str, source: str, size: int, settings: KnowledgeSettings
) -> None:
    others = select(func.count(), func.coalesce(func.sum(Document.size), 0))
    count, kept = (
        await session.execute(others.where(Document.owner == owner, Document.source != source))
    ).one()
    if count >= settings.documents_per_owner:
        detail = f"You have {settings.documents_per_owner} documents, which are the most: delete some first."
    elif (kept or 0) + size > settings.bytes_per_owner:
        detail = (
            f"Your other documents have {kept} bytes, this one {size}, and {settings.bytes_per_owner} are the most: "
            "delete some first."
        )
    else:
        return
    raise RunError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, final=True)


def _write(engine: Engine, place: Place, name: str, data: bytes) -> None:
    current = current_embeddings()
    model = LoopEmbeddings(current.name, current.embedder)
    text = Text.of(name, data, model.name, place, MAX_CHARS)
    if not text.passages:
        raise UnreadableError("holds no text")
    Ingestion(engine, model).put(text)


async def _explained(work: Callable[[], T]) -> T:
    try:
        return await run_in_threadpool(work)
    except UnreadableError as error:
        detail = f"The document {error}."
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True) from error
    except (EmbeddingsError, IngestError) as error:
        raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), final=True) from error
    except AgentRunError as error:
        raise explain(error) from error


async def _find(sessions: Any, source: str, collection: str, name: str, *options: ORMOption) -> Document:
    async with sessions() as session:
        row: Document | None = await session.get(Document, source, options=options)
    if row is None:
        raise _no_document(collection, name)
    return row


def _view(row: Document) -> dict[str, Any]:
    return {
        "collection": row.collection or "",
        "name": row.name or row.source,
        "shared": row.owner is None,
        "bytes": row.size or 0,
        "updated_at": row.updated_at,
    }


def _no_document(collection: str, name: str) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no document {name!r} in {collection!r}.")
