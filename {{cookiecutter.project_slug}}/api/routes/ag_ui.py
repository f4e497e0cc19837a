"""`/v1/agents/{id}/ag-ui`: an agent for clients of the AG-UI protocol, such as CopilotKit.

https://docs.ag-ui.com
"""

from typing import Annotated

from ag_ui.core import Message, RunAgentInput
from fastapi import APIRouter
from pydantic_ai.ui.ag_ui import AGUIAdapter

from api import adapters
from api.auth import CallerOf
from api.routes.conversations import ConversationId
from api.services import ServicesOf
from api.streaming import EVENTS, EventStream

router = APIRouter(prefix="/v1/agents", tags=["ag-ui"])


class Body(RunAgentInput):
    """What the client sends; the thread is the conversation."""

    thread_id: ConversationId
    messages: Annotated[list[Message], adapters.DOCUMENTED]


@router.post("/{agent_id}/ag-ui", status_code=200, response_class=EventStream, responses=EVENTS)
async def run_for_ag_ui(agent_id: str, body: Body, caller: CallerOf, services: ServicesOf) -> EventStream:
    """Run an agent and answer with AG-UI's events.

    The conversation is kept here under the thread's id, so that of the messages only the newest count.
    The agent may call the client's own tools, whose results come with the next request.
    """
    return await adapters.stream(
        AGUIAdapter, body, services, agent_id, caller, conversation_id=body.thread_id
    )
