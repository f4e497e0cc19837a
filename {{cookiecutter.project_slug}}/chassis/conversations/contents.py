"""What a message holds beside its texts: pictures, sound, documents."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_ai.messages import BinaryContent, FileUrl, TextContent, UploadedFile, UserContent

from chassis.files.kinds import PICTURE_CHARS, chars_of, given_name
from chassis.files.references import reference_of


class Attachment(BaseModel):
    """Something attached to a message; with an id it is in `/v1/attachments`, else elsewhere if it has an address."""

    id: str | None = None
    name: str | None = None
    media_type: str
    bytes: int | None = None
    url: str | None = None


def attachments(content: str | Sequence[UserContent]) -> list[Attachment]:
    """Return what is attached."""
    return [found for item in _items(content) if (found := _attachment(item))]


def words(content: str | Sequence[UserContent]) -> str:
    """Return the texts as one; a message without any is told by what is attached."""
    items = list(_items(content))
    texts = [
        item.content if isinstance(item, TextContent) else item for item in items if not reference_of(item)
    ]
    said = [text for text in texts if isinstance(text, str) and text]
    return "\n\n".join(said) or " ".join(
        f"[{found.name or found.media_type}]" for item in items if (found := _attachment(item))
    )


def count_chars(content: Any) -> int:
    """Return how long the content of any part of a message is for a model."""
    if kept := reference_of(content):
        return kept.chars
    if isinstance(content, BinaryContent):
        return chars_of(content.data, content.media_type)
    if isinstance(content, (FileUrl, UploadedFile)):
        return PICTURE_CHARS
    if isinstance(content, TextContent):
        return len(content.content)
    if isinstance(content, (list, tuple)):
        return sum(map(count_chars, content))
    if isinstance(content, dict):
        return sum(len(str(name)) + count_chars(value) for name, value in content.items())
    return len(str(content))


def _items(content: str | Sequence[UserContent]) -> Iterator[Any]:
    yield from [content] if isinstance(content, str) else content


def _attachment(item: Any) -> Attachment | None:
    if kept := reference_of(item):
        return Attachment(id=kept.id, name=kept.name, media_type=kept.media_type, bytes=kept.bytes)
    match item:
        case BinaryContent():
            return Attachment(name=given_name(item), media_type=item.media_type, bytes=len(item.data))
        case FileUrl():
            return Attachment(media_type=_media_type(item), url=item.url)
        case UploadedFile():
            return Attachment(media_type=item.media_type)
    return None


def _media_type(item: FileUrl) -> str:
    try:
        return item.media_type
    except ValueError:  # The address doesn't tell.
        return "application/octet-stream"
