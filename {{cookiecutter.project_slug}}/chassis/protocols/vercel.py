"""`/v1/agents/{id}/vercel`: an agent for clients of Vercel's AI SDK, such as its `useChat`.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AfterValidator, Field
from pydantic_ai.messages import BinaryContent, FileUrl, ModelMessage, UploadedFile, UserContent
from pydantic_ai.ui.vercel_ai import VercelAIAdapter
from pydantic_ai.ui.vercel_ai.request_types import FileUIPart, RegenerateMessage, SubmitMessage, UIMessage

from chassis.conversations.routes import ConversationId
from chassis.files.references import replaced
from chassis.http.middleware import UploadRoute
from chassis.http.streaming import EVENTS, EventStream
from chassis.keys.authentication import CallerOf
from chassis.protocols import adapters
from chassis.protocols.adapters import ServicesOf


class Adapter(VercelAIAdapter[Any, Any]):
    """The SDK's, with the names of files, which pydantic-ai leaves out."""

    @classmethod
    def load_messages(cls, messages: Sequence[UIMessage]) -> list[ModelMessage]:
        """Return the messages as pydantic-ai's."""
        parts = [part for message in messages if message.role == "user" for part in message.parts]
        names = [part.filename for part in parts if isinstance(part, FileUIPart)]

        def named(item: UserContent) -> UserContent:
            if not isinstance(item, (BinaryContent, FileUrl, UploadedFile)):
                return item
            name = names.pop(0) if names else None
            if name is None or not isinstance(item, BinaryContent):
                return item
            return BinaryContent.narrow_type(
                BinaryContent(
                    item.data,
                    media_type=item.media_type,
                    identifier=name,
                    vendor_metadata=item.vendor_metadata,
                )
            )

        return replaced(super().load_messages(messages), named)


router = APIRouter(prefix="/v1/agents", tags=["vercel"], route_class=UploadRoute)


def _readable(messages: list[UIMessage]) -> list[UIMessage]:
    # Raises a ValueError for parts where they make no sense, which is better said before the run starts.
    adapters.check_files(Adapter.load_messages(messages))
    return messages


Messages = Annotated[list[UIMessage], AfterValidator(_readable), adapters.DOCUMENTED]


class Submit(SubmitMessage):
    """A new message, or an old one in new words."""

    id: ConversationId
    messages: Messages


class Regenerate(RegenerateMessage):
    """The wish for another answer."""

    id: ConversationId
    messages: Messages


Body = Annotated[Submit | Regenerate, Field(discriminator="trigger")]


@router.post("/{agent_id}/vercel", status_code=200, response_class=EventStream, responses=EVENTS)
async def run_for_vercel(agent_id: str, body: Body, caller: CallerOf, services: ServicesOf) -> EventStream:
    """Run an agent and answer with the SDK's UI message stream.

    The conversation is kept here under the id that the client gives it, so that of the messages only
    the newest count.
    """
    return await adapters.stream(
        Adapter,
        body,
        services,
        agent_id,
        caller,
        loaded=Adapter.load_messages(body.messages),
        conversation_id=body.id,
        sdk_version=7,
    )


@router.get("/{agent_id}/vercel/{chat_id}/stream", status_code=HTTPStatus.NO_CONTENT)
async def resume_for_vercel(
    agent_id: str, chat_id: Annotated[ConversationId, Path()], caller: CallerOf
) -> None:
    """Tell `useChat({resume: true})` that nothing is underway: a run ends when its client leaves."""
