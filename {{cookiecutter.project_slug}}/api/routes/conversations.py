"""`/v1/conversations`: what was said, its name, and taking it away."""

from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, StringConstraints
from pydantic_ai.messages import ModelMessage, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

from agents.store import used
from api.auth import CallerOf
from api.pages import Cursor, Limit, after, encode_cursor
from api.services import ServicesOf
from db.tables import Conversation

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

# Any that a client may have made, as long as it fits into a path and a key of the database.
ConversationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
ConversationPath = Annotated[ConversationId, Path()]


class ConversationView(BaseModel):
    """A conversation in a list."""

    id: str
    title: str | None
    created_at: datetime
    updated_at: datetime


class ConversationList(BaseModel):
    """Conversations, the last changed first."""

    conversations: list[ConversationView]
    next_cursor: str | None = None


class MessageView(BaseModel):
    """Something said by the user, the assistant or a tool, or a call of a tool by the assistant."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_name: str | None = None
    tool_call_id: str | None = None


class ConversationDetail(ConversationView):
    """A conversation with its newest messages, oldest first, and what all its runs have used."""

    messages: list[MessageView]
    usage: dict[str, Any]


class Rename(BaseModel, extra="forbid"):
    """What a conversation is to be called."""

    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    ]


@router.get("")
async def list_conversations(
    services: ServicesOf, caller: CallerOf, limit: Limit = 50, cursor: Cursor = None
) -> ConversationList:
    """List the conversations, the last changed first."""
    start = after(cursor, Conversation.updated_at, Conversation.id) if cursor else None
    rows = await services.store.read_summaries(caller.owner, limit=limit + 1, start=start)
    page = [ConversationView(**row._asdict()) for row in rows[:limit]]
    more = len(rows) > limit
    return ConversationList(
        conversations=page, next_cursor=encode_cursor(page[-1].updated_at, page[-1].id) if more else None
    )


@router.get("/{conversation_id}", response_model_exclude_none=True)
async def read_conversation(
    conversation_id: ConversationPath,
    services: ServicesOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=1000, description="how many of the newest messages")] = 200,
) -> ConversationDetail:
    """Return what was said in a conversation."""
    summary = await services.store.read_summary(conversation_id, caller.owner)
    conversation = await services.store.load(conversation_id, limit=limit, scope=caller.owner)
    if summary is None or conversation is None:
        raise _not_found(conversation_id)
    return ConversationDetail(
        **summary._asdict(),
        messages=[view for message in conversation.messages for view in _views(message)],
        usage=used(conversation.usage),
    )


@router.patch("/{conversation_id}")
async def rename_conversation(
    conversation_id: ConversationPath, body: Rename, services: ServicesOf, caller: CallerOf
) -> ConversationView:
    """Give a conversation another title."""
    summary = await services.store.rename(conversation_id, caller.owner, body.title)
    if summary is None:
        raise _not_found(conversation_id)
    return ConversationView(**summary._asdict())


@router.delete("/{conversation_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_conversation(
    conversation_id: ConversationPath, services: ServicesOf, caller: CallerOf
) -> None:
    """Delete a conversation, its messages and its runs."""
    if await services.store.read_summary(conversation_id, caller.owner) is None:
        raise _not_found(conversation_id)
    await services.store.delete(conversation_id, scope=caller.owner)


def _not_found(conversation_id: str) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no conversation {conversation_id!r}.")


def _views(message: ModelMessage) -> Iterator[MessageView]:
    for part in message.parts:
        match part:
            case UserPromptPart(content=str(text)):
                yield MessageView(role="user", content=text)
            case TextPart(content=text):
                yield MessageView(role="assistant", content=text)
            case ToolCallPart():
                yield MessageView(
                    role="assistant",
                    content=part.args_as_json_str(),
                    tool_name=part.tool_name,
                    tool_call_id=part.tool_call_id,
                )
            case ToolReturnPart():
                yield MessageView(
                    role="tool",
                    content=part.model_response_str(),
                    tool_name=part.tool_name,
                    tool_call_id=part.tool_call_id,
                )
