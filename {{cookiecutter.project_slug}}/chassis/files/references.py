"""How a message names a file that is kept apart from it.

It is a text of pydantic-ai's with metadata, which no client can send, since pydantic-ai drops what clients claim
there. Where the file is gone, the model reads the text: that there was one, and its name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from pydantic_ai.messages import ModelMessage, ModelRequest, TextContent, UserContent, UserPromptPart

MARK = "api_file"


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a message names; `chars` is about what it takes of a model's window."""

    id: str
    name: str
    media_type: str
    bytes: int
    chars: int

    @property
    def uuid(self) -> UUID:
        """The id in `api_files`."""
        return UUID(self.id)

    def content(self) -> TextContent:
        """Return what stands in the message."""
        return TextContent(f"[{self.name}]", metadata={MARK: asdict(self)})


def reference_of(item: Any) -> Reference | None:
    """Return which file a part of a message's content names, if it does."""
    if not isinstance(item, TextContent) or not isinstance(item.metadata, dict):
        return None
    kept = item.metadata.get(MARK)
    return Reference(**kept) if kept else None


def items(messages: Sequence[ModelMessage]) -> Iterator[UserContent]:
    """Yield what the user has said and shown, oldest first."""
    for message in messages:
        for part in message.parts if isinstance(message, ModelRequest) else ():
            if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
                yield from part.content


def replaced(
    messages: Sequence[ModelMessage], by: Callable[[UserContent], UserContent]
) -> list[ModelMessage]:
    """Return the messages with another thing in the place of each that the user has said or shown."""
    found: list[ModelMessage] = []
    for message in messages:
        if isinstance(message, ModelRequest) and any(True for _ in items([message])):
            parts = [
                replace(part, content=[by(item) for item in part.content])
                if isinstance(part, UserPromptPart) and not isinstance(part.content, str)
                else part
                for part in message.parts
            ]
            found.append(replace(message, parts=parts))
        else:
            found.append(message)
    return found
