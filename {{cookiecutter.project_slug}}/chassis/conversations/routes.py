"""`/v1/conversations`: what was said, its name, and taking it away."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field, StringConstraints
from pydantic_ai.conversation_store import ConversationEntry
from pydantic_ai.messages import (
    FilePart,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from chassis.conversations.contents import Attachment, attachments, words
from chassis.conversations.outputs import output_of
from chassis.conversations.store import DatabaseConversationStore, used
from chassis.conversations.tables import Conversation
from chassis.http.dependencies import from_state
from chassis.http.pagination import Cursor, Limit, after, encode_cursor
from chassis.keys.authentication import CallerOf

StoreOf = Annotated[DatabaseConversationStore, from_state("store")]

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

# Any that a client may have made, as long as it fits into a path and a key of the database.
ConversationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
MessageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
ConversationPath = Annotated[ConversationId, Path()]


class NamedFile(BaseModel):
    """A file in a list."""

    name: str
    media_type: str


class ConversationView(BaseModel):
    """A conversation in a list."""

    id: str
    title: str | None
    created_at: datetime
    updated_at: datetime
    agent_id: Annotated[str | None, Field(description="the agent that answered last")] = None
    attachments: Annotated[
        list[NamedFile] | None, Field(description="the newest of what was shown in it")
    ] = None


class ConversationList(BaseModel):
    """Conversations, the last changed first."""

    conversations: list[ConversationView]
    next_cursor: str | None = None


class MessageView(BaseModel):
    """Something said by the user, the assistant or a tool, or a call of a tool by the assistant."""

    id: Annotated[str, Field(description="of the message that it is a part of; a run can replace the user's")]
    role: Literal["user", "assistant", "tool"]
    content: str
    run_id: Annotated[str | None, Field(description="of the run that it belongs to")] = None
    attachments: list[Attachment] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    is_output: Annotated[
        bool | None, Field(description="whether the content is the run's output as JSON, as `done` had it")
    ] = None


class ConversationDetail(ConversationView):
    """A conversation with its newest messages, oldest first, and what all its runs have used."""

    messages: list[MessageView]
    usage: dict[str, Any]
    waiting_run_id: Annotated[
        UUID | None, Field(description="the run that waits for a person's word on calls of tools")
    ] = None


class Rename(BaseModel, extra="forbid"):
    """What a conversation is to be called."""

    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    ]


@router.get("")
async def list_conversations(
    store: StoreOf, caller: CallerOf, limit: Limit = 50, cursor: Cursor = None
) -> ConversationList:
    """List the conversations, the last changed first."""
    start = after(cursor, Conversation.updated_at, Conversation.id) if cursor else None
    rows = await store.read_summaries(caller.owner, limit=limit + 1, start=start)
    page = [ConversationView(**row._asdict()) for row in rows[:limit]]
    more = len(rows) > limit
    return ConversationList(
        conversations=page, next_cursor=encode_cursor(page[-1].updated_at, page[-1].id) if more else None
    )


@router.get("/{conversation_id}", response_model_exclude_none=True)
async def read_conversation(
    conversation_id: ConversationPath,
    store: StoreOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=1000, description="how many of the newest messages")] = 200,
) -> ConversationDetail:
    """Return what was said in a conversation."""
    summary = await store.read_summary(conversation_id, caller.owner)
    record = await store.read_record(conversation_id)
    entries = await store.load_entries(conversation_id, limit=limit, scope=caller.owner)
    if summary is None or record is None or entries is None:
        raise no_conversation(conversation_id)
    return ConversationDetail(
        **summary._asdict(),
        messages=[view for entry in entries for view in _views(entry)],
        usage=used(record.usage),
    )


@router.patch("/{conversation_id}")
async def rename_conversation(
    conversation_id: ConversationPath, body: Rename, store: StoreOf, caller: CallerOf
) -> ConversationView:
    """Give a conversation another title."""
    summary = await store.rename(conversation_id, caller.owner, body.title)
    if summary is None:
        raise no_conversation(conversation_id)
    return ConversationView(**summary._asdict())


@router.delete("/{conversation_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_conversation(conversation_id: ConversationPath, store: StoreOf, caller: CallerOf) -> None:
    """Delete a conversation, its messages and its runs."""
    if await store.read_summary(conversation_id, caller.owner) is None:
        raise no_conversation(conversation_id)
    await store.delete(conversation_id, scope=caller.owner)


def no_conversation(conversation_id: str) -> HTTPException:
    """Return the answer where there is no such conversation of the caller's."""
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no conversation {conversation_id!r}.")


def _views(entry: ConversationEntry) -> Iterator[MessageView]:
    view = partial(MessageView, id=entry.id, run_id=entry.message.run_id)
    output = output_of(entry.message)
    for part in entry.message.parts:
        match part:
            case TextPart() if output and output.tool_call_id is None:
                continue
            case ToolCallPart(tool_name=name, tool_call_id=call) if output and output.tool_call_id == call:
                yield view(
                    role="assistant", content=output.json, tool_name=name, tool_call_id=call, is_output=True
                )
            case UserPromptPart(content=content):
                attached = attachments(content) or None
                yield view(role="user", content=words(content), attachments=attached)
            case FilePart(content=content):
                attached = attachments([content])
                yield view(role="assistant", content=words([content]), attachments=attached)
            case TextPart(content=text):
                yield view(role="assistant", content=text)
            case ToolCallPart():
                yield view(
                    role="assistant",
                    content=part.args_as_json_str(),
                    tool_name=part.tool_name,
                    tool_call_id=part.tool_call_id,
                )
            case ToolReturnPart():
                yield view(
                    role="tool",
                    content=part.model_response_str(),
                    tool_name=part.tool_name,
                    tool_call_id=part.tool_call_id,
                )
            case RetryPromptPart(tool_name=str(name), tool_call_id=call):
                yield view(role="tool", content=part.model_response(), tool_name=name, tool_call_id=call)
    if output and output.tool_call_id is None:
        yield view(role="assistant", content=output.json, is_output=True)
