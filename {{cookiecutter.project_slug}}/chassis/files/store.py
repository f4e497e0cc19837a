"""Keeping files, and reading them for what a model is sent."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from pydantic_ai.messages import BinaryContent, FileUrl, ImageUrl, ModelMessage, UserContent
from sqlalchemy import delete, func, insert, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database.engine import Sessions
from chassis.errors import RunError
from chassis.files.kinds import chars_of, given_name, kind_of, name_of
from chassis.files.references import Reference, items, reference_of, replaced
from chassis.files.settings import JSON, FileSettings
from chassis.files.tables import ApiFile

# What was uploaded and never said goes after a day, by the next who uploads: nothing has to run for that.
SWEEP = text("""
    DELETE FROM api_files WHERE id IN (
        SELECT id FROM api_files WHERE conversation_id IS NULL AND created_at < now() - interval '1 day'
        LIMIT 100 FOR UPDATE SKIP LOCKED
    )
""")


class FileInfo(NamedTuple):
    """What is known of a file beside its contents."""

    id: UUID
    name: str
    media_type: str
    size: int
    chars: int
    conversation_id: str | None

    @property
    def reference(self) -> Reference:
        """How a message names it."""
        return Reference(str(self.id), self.name, self.media_type, self.size, self.chars)


INFO = (ApiFile.id, ApiFile.name, ApiFile.media_type, ApiFile.size, ApiFile.chars, ApiFile.conversation_id)


class FileStore:
    """Keeps files in `api_files`, and says which are taken."""

    def __init__(self, sessions: Sessions, settings: FileSettings) -> None:
        self._sessions = sessions
        self.settings = settings

    def check(self, data: bytes, said: str, name: str | None) -> BinaryContent:
        """Return a file as pydantic-ai has it, of the kind that its contents say.

        Raises:
            RunError: if it isn't taken.
        """
        shown = f"The file {name_of(name, '')!r} isn't taken" if name else "A file isn't taken"
        if len(data) > self.settings.max_bytes:
            detail = f"{shown}: it has {len(data)} bytes, and {self.settings.max_bytes} are the most."
            raise RunError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, final=True)
        if not data:
            raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{shown}: it is empty.", final=True)
        try:
            media_type = kind_of(data, said, name or "", self.settings.types)
        except ValueError as error:
            raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{shown}: {error}.", final=True) from None
        return BinaryContent(data, media_type=media_type, identifier=name_of(name, media_type))

    def check_url(self, url: str, *, is_image: bool = True) -> ImageUrl:
        """Return the address of a picture, for the provider to fetch.

        Raises:
            RunError: if none are passed on.
        """
        if self.settings.urls and is_image and url.startswith("https://"):
            return ImageUrl(url)
        detail = "A file's address isn't fetched: send the file itself, as a data: URL, or upload it to /v1/attachments."
        raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True)

    def check_sent(self, contents: Sequence[UserContent]) -> None:
        """Refuse files that an adapter of pydantic-ai has read, if they aren't taken as they are.

        Raises:
            RunError: saying why.
        """
        for item in contents:
            if isinstance(item, FileUrl):
                self.check_url(item.url, is_image=isinstance(item, ImageUrl))
            elif isinstance(item, BinaryContent):
                found = self.check(item.data, item.media_type, None)
                if found.media_type != item.media_type:
                    detail = (
                        f"A file isn't taken: it is said to be {item.media_type}, but is {found.media_type}."
                    )
                    raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True)
        self.check_all(contents)

    def check_all(self, contents: Sequence[UserContent]) -> None:
        """Refuse more files, or larger ones, than a request may bring.

        Raises:
            RunError: if there are.
        """
        sizes = [size for item in contents if (size := size_of(item)) is not None]
        if len(sizes) > self.settings.max_count:
            detail = f"A request may bring {self.settings.max_count} files, not {len(sizes)}: send fewer."
            raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True)
        if sum(sizes) > self.settings.request_bytes:
            most = self.settings.request_bytes
            detail = f"The files of a request may have {most} bytes, not {sum(sizes)}: send fewer, or smaller ones."
            raise RunError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, final=True)

    async def check_room(
        self, owner: str, contents: Sequence[UserContent], conversation_id: str | None = None
    ) -> None:
        """Refuse what is to be kept in a conversation, a new one without an id, where the owner has too much already.

        Raises:
            RunError: if it is so.
        """
        size = sum(len(item.data) for item in contents if isinstance(item, BinaryContent))
        named = [file.uuid for item in contents if (file := reference_of(item))]
        if not size and not named:
            return
        total = select(func.coalesce(func.sum(ApiFile.size), 0)).where(ApiFile.owner == owner)
        # Of what is another conversation's, this one gets copies.
        copied = total.where(ApiFile.id.in_(named), ApiFile.conversation_id != conversation_id)
        async with self._sessions.engine.connect() as connection:
            size += int(await connection.scalar(copied) or 0) if named else 0
            kept = int(await connection.scalar(total) or 0) if size else 0
        if size and kept + size > self.settings.owner_bytes:
            detail = (
                f"The files that are kept for you have {kept} bytes, and {self.settings.owner_bytes} are the most: "
                "delete conversations with files first."
            )
            raise RunError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, final=True)

    async def add(self, owner: str, content: BinaryContent) -> FileInfo:
        """Keep a file that was checked, to be said within a day.

        Raises:
            RunError: if the owner has too much already.
        """
        await self.check_room(owner, [content])
        row = _row(owner, content)
        async with self._sessions.begin() as session:
            await session.execute(SWEEP)
            await session.execute(insert(ApiFile), [row])
        return _info(row)

    async def info(self, file_id: UUID, owner: str) -> FileInfo | None:
        """Return what is known of the owner's file, or None."""
        return (await self._infos([file_id], owner)).get(file_id)

    async def read(self, file_id: UUID, owner: str) -> bytes | None:
        """Return the contents of the owner's file, or None."""
        query = select(ApiFile.content).where(ApiFile.id == file_id, ApiFile.owner == owner)
        async with self._sessions.engine.connect() as connection:
            return await connection.scalar(query)

    async def remove(self, file_id: UUID, owner: str) -> bool:
        """Delete the owner's file; a message that names it goes on naming it. Return whether there was one."""
        statement = delete(ApiFile).where(ApiFile.id == file_id, ApiFile.owner == owner).returning(ApiFile.id)
        async with self._sessions.engine.connect() as connection:
            return await connection.scalar(statement) is not None

    async def refer(self, file_ids: Sequence[UUID], owner: str) -> list[UserContent]:
        """Return what a message says that names these files of the owner's.

        Raises:
            RunError: if there is no such file, or they are too many.
        """
        if not file_ids:
            return []
        there = await self._infos(file_ids, owner)
        for file_id in file_ids:
            if file_id not in there:
                detail = f"There is no file {str(file_id)!r}: what is uploaded has to be said within a day."
                raise RunError(HTTPStatus.NOT_FOUND, detail, final=True)
        contents: list[UserContent] = [
            there[file_id].reference.content() for file_id in dict.fromkeys(file_ids)
        ]
        self.check_all(contents)
        return contents

    async def fill(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        """Return the messages with the files that they name, the newest as far as a request may have bytes.

        JSON is handed over as plain text, since Bedrock's models take no other.
        """
        if not has_files(messages):
            return messages
        left, wanted = self.settings.request_bytes, dict[str, Reference]()
        for item in reversed(list(items(messages))):
            if (kept := reference_of(item)) and kept.id not in wanted:
                left -= kept.bytes
                if left < 0:
                    break
                wanted[kept.id] = kept
        contents: dict[str, bytes] = {}
        if wanted:
            query = select(ApiFile.id, ApiFile.content).where(
                ApiFile.id.in_(each.uuid for each in wanted.values())
            )
            async with self._sessions.engine.connect() as connection:
                contents = {str(row.id): row.content for row in await connection.execute(query)}

        def fill(item: UserContent) -> UserContent:
            kept = reference_of(item)
            if kept and kept.id in contents:
                item = BinaryContent.narrow_type(
                    BinaryContent(contents[kept.id], media_type=kept.media_type, identifier=kept.name)
                )
            if isinstance(item, BinaryContent) and item.media_type == JSON:
                return BinaryContent(item.data, media_type="text/plain", identifier=item.identifier)
            return item

        return replaced(messages, fill)

    async def _infos(self, file_ids: Sequence[UUID], owner: str) -> dict[UUID, FileInfo]:
        query = select(*INFO).where(ApiFile.id.in_(file_ids), ApiFile.owner == owner)
        async with self._sessions.engine.connect() as connection:
            return {row.id: FileInfo(*row) for row in await connection.execute(query)}


async def keep(
    session: AsyncSession, owner: str, conversation_id: str, messages: Sequence[ModelMessage]
) -> list[ModelMessage]:
    """Keep the files of messages that are being saved, and return the messages that name them instead."""
    rows: list[dict[str, Any]] = []
    named = [kept.uuid for item in items(messages) if (kept := reference_of(item))]
    copies = await _claim(session, owner, conversation_id, named) if named else {}

    def refer(item: UserContent) -> UserContent:
        if isinstance(item, BinaryContent):
            rows.append(_row(owner, item, conversation_id))
            return _info(rows[-1]).reference.content()
        if (kept := reference_of(item)) and kept.uuid in copies:
            return replace(kept, id=str(copies[kept.uuid])).content()
        return item

    changed = replaced(messages, refer)
    if rows:
        await session.execute(insert(ApiFile), rows)
    return changed


async def _claim(
    session: AsyncSession, owner: str, conversation_id: str, file_ids: Sequence[UUID]
) -> dict[UUID, UUID]:
    """Make uploaded files those of a conversation. Of another one's it gets copies, since each is deleted by itself."""
    query = select(ApiFile.id, ApiFile.conversation_id).where(
        ApiFile.id.in_(file_ids), ApiFile.owner == owner
    )
    rows = (await session.execute(query.with_for_update())).all()
    waiting = [row.id for row in rows if row.conversation_id is None]
    copies = {row.id: uuid4() for row in rows if row.conversation_id not in (None, conversation_id)}
    if waiting:
        await session.execute(
            update(ApiFile).where(ApiFile.id.in_(waiting)).values(conversation_id=conversation_id)
        )
    for old, new in copies.items():
        same = [
            ApiFile.owner,
            ApiFile.name,
            ApiFile.media_type,
            ApiFile.size,
            ApiFile.chars,
            ApiFile.sha256,
            ApiFile.content,
        ]
        copy = select(literal(new), literal(conversation_id), *same).where(ApiFile.id == old)
        await session.execute(insert(ApiFile).from_select(["id", "conversation_id", *same], copy))
    return copies


def has_files(messages: Sequence[ModelMessage]) -> bool:
    """Tell whether there is anything to keep in these messages."""
    return any(size_of(item) for item in items(messages))


def size_of(item: UserContent) -> int | None:
    """Return how many bytes a file has that is shown in a message; 0 where only its provider knows, None for a text."""
    if isinstance(item, BinaryContent):
        return len(item.data)
    if kept := reference_of(item):
        return kept.bytes
    return 0 if isinstance(item, FileUrl) else None


def _row(owner: str, content: BinaryContent, conversation_id: str | None = None) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "owner": owner,
        "conversation_id": conversation_id,
        "name": given_name(content) or name_of(None, content.media_type),
        "media_type": content.media_type,
        "size": len(content.data),
        "chars": chars_of(content.data, content.media_type),
        "sha256": hashlib.sha256(content.data).digest(),
        "content": content.data,
    }


def _info(row: dict[str, Any]) -> FileInfo:
    return FileInfo(*(row[name] for name in FileInfo._fields))
