"""`/v1/agents/{id}/vercel`: an agent for clients of Vercel's AI SDK, such as its `useChat`.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AfterValidator, Field
from pydantic_ai.ui.vercel_ai import VercelAIAdapter
from pydantic_ai.ui.vercel_ai.request_types import RegenerateMessage, SubmitMessage, UIMessage

from chassis.conversations.routes import ConversationId
from chassis.http.middleware import UploadRoute
from chassis.http.streaming import EVENTS, EventStream
from chassis.keys.authentication import CallerOf
from chassis.protocols import adapters
from chassis.protocols.adapters import ServicesOf

router = APIRouter(prefix="/v1/agents", tags=["vercel"], route_class=UploadRoute)


def _readable(messages: list[UIMessage]) -> list[UIMessage]:
    # Raises a ValueError for parts where they make no sense, which is better said before the run starts.
    adapters.check_files(VercelAIAdapter.load_messages(messages))
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
        VercelAIAdapter,
        body,
        services,
        agent_id,
        caller,
        loaded=VercelAIAdapter.load_messages(body.messages),
        conversation_id=body.id,
        sdk_version=7,
    )


@router.get("/{agent_id}/vercel/{chat_id}/stream", status_code=HTTPStatus.NO_CONTENT)
async def resume_for_vercel(
    agent_id: str, chat_id: Annotated[ConversationId, Path()], caller: CallerOf
) -> None:
    """Tell `useChat({resume: true})` that nothing is underway: a run ends when its client leaves."""
