"""`/v1/conversations`: what was said, and taking it away."""

from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, StringConstraints
from pydantic_ai.messages import ModelMessage, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

from api.services import ServicesOf

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


class MessageView(BaseModel):
    """Something said by the user, the assistant or a tool, or a call of a tool by the assistant."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_name: str | None = None
    tool_call_id: str | None = None


class MessageList(BaseModel):
    """What was said in a conversation, oldest first."""

    id: str
    messages: list[MessageView]


@router.get("")
async def list_conversations(
    services: ServicesOf, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> ConversationList:
    """List the conversations, the last changed first."""
    rows = await services.store.read_summaries(limit=limit)
    return ConversationList(conversations=[ConversationView(**row._asdict()) for row in rows])


@router.get("/{conversation_id}", response_model_exclude_none=True)
async def read_conversation(conversation_id: ConversationPath, services: ServicesOf) -> MessageList:
    """Return what was said in a conversation."""
    conversation = await services.store.load(conversation_id)
    if conversation is None:
        raise _not_found(conversation_id)
    views = [view for message in conversation.messages for view in _views(message)]
    return MessageList(id=conversation_id, messages=views)


@router.delete("/{conversation_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_conversation(conversation_id: ConversationPath, services: ServicesOf) -> None:
    """Delete a conversation, its messages and its runs."""
    if await services.store.read_record(conversation_id) is None:
        raise _not_found(conversation_id)
    await services.store.delete(conversation_id)


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
