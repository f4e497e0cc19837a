"""What a file is, told by its contents: names and media types are only what somebody says."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from pydantic_ai.messages import BinaryContent

from chassis.files.settings import IMAGES, PDF, TEXTS

NAME_LENGTH = 120
# What programs say that don't know; the last is what curl says of any data.
UNKNOWN = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    PDF: ".pdf",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "application/json": ".json",
}
BY_EXTENSION = {extension: media_type for media_type, extension in EXTENSIONS.items()}
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
PAGE = re.compile(rb"/Type\s*/Page\b(?!s)")

# Four characters are about a token. A picture costs about 1,500 of these, however many bytes it has, and so does a
# page of a PDF, which providers look at as at a picture.
PICTURE_CHARS = 6_000
PAGE_BYTES = 200_000


def _magic(data: bytes) -> str | None:
    for start, media_type in (
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"%PDF-", PDF),
    ):
        if data.startswith(start):
            return media_type
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _is_text(data: bytes) -> bool:
    try:
        return not CONTROLS.search(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return False


def kind_of(data: bytes, said: str, name: str, taken: Collection[str]) -> str:
    """Return the media type of a file.

    Args:
        data: its contents.
        said: the media type that it is said to have, or nothing.
        name: its name, which tells one kind of text from another.
        taken: the media types that are allowed.

    Raises:
        ValueError: if it is none of those, or another thing than is said.
    """
    said = said.partition(";")[0].strip().lower()
    found = _magic(data)
    if found is None and _is_text(data):
        if said in (*IMAGES, PDF):
            raise ValueError(f"it is said to be {said}, but its contents are text")
        wanted = said if said in TEXTS else BY_EXTENSION.get(PurePosixPath(name).suffix.lower(), "")
        found = wanted if wanted in TEXTS and wanted in taken else "text/plain"
    if found is None:
        if said in UNKNOWN:
            raise ValueError(f"it is of no known kind: send {_listed(taken)}")
        why = "but its contents aren't" if said in taken else "which isn't taken"
        raise ValueError(f"it is said to be {said}, {why}: send {_listed(taken)}")
    if found not in taken:
        raise ValueError(f"it is {found}, which isn't taken: send {_listed(taken)}")
    return found


def _listed(taken: Collection[str]) -> str:
    return ", ".join(taken) or "no files, since none are taken here"


def given_name(content: BinaryContent) -> str | None:
    """Return the name that a file was sent with. pydantic-ai identifies one without by a part of its hash."""
    made_up = BinaryContent(content.data, media_type=content.media_type).identifier
    return name_of(content.identifier, content.media_type) if content.identifier != made_up else None


def name_of(said: str | None, media_type: str) -> str:
    """Return a name in one line and without a folder, made up if there is none."""
    name = re.split(r"[/\\]", said or "")[-1]
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split()).strip(".")
    if len(name) > NAME_LENGTH:
        stem, dot, suffix = name.rpartition(".")
        name = (
            f"{stem[: NAME_LENGTH - len(suffix) - 1]}.{suffix}"
            if dot and len(suffix) < 10
            else name[:NAME_LENGTH]
        )
    return name or f"{media_type.partition('/')[0]}{EXTENSIONS.get(media_type, '')}"


def chars_of(data: bytes, media_type: str) -> int:
    """Return about how many characters of a model's window a file takes."""
    if media_type in TEXTS:
        return len(data)
    if media_type == PDF:
        return PICTURE_CHARS * max(len(PAGE.findall(data)), 1 + len(data) // PAGE_BYTES)
    return PICTURE_CHARS
