"""`/v1/agents/{id}/ag-ui`: an agent for clients of the AG-UI protocol, such as CopilotKit.

https://docs.ag-ui.com
"""

from typing import Annotated

from ag_ui.core import AssistantMessage, FunctionCall, Message, RunAgentInput, ToolCall, ToolMessage
from fastapi import APIRouter
from pydantic import AfterValidator
from pydantic_ai.messages import ModelMessage
from pydantic_ai.ui.ag_ui import AGUIAdapter

from chassis.conversations.routes import ConversationId
from chassis.http.middleware import UploadRoute
from chassis.http.streaming import EVENTS, EventStream
from chassis.keys.authentication import CallerOf
from chassis.protocols import adapters
from chassis.protocols.adapters import ServicesOf

router = APIRouter(prefix="/v1/agents", tags=["ag-ui"], route_class=UploadRoute)


def _load(messages: list[Message]) -> list[ModelMessage]:
    # A tool's result may come without its call, which is stored here: any call stands for it.
    function = FunctionCall(name="stored", arguments="{}")
    results = [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    calls = [ToolCall(id=result, function=function) for result in results]
    return AGUIAdapter.load_messages([AssistantMessage(id="stored", tool_calls=calls), *messages])


def _readable(messages: list[Message]) -> list[Message]:
    # Raises a ValueError for contents that make no sense, which is better said before the run starts.
    adapters.check_files(_load(messages))
    return messages


class Body(RunAgentInput):
    """What the client sends; the thread is the conversation."""

    thread_id: ConversationId
    messages: Annotated[list[Message], AfterValidator(_readable), adapters.DOCUMENTED]


@router.post("/{agent_id}/ag-ui", status_code=200, response_class=EventStream, responses=EVENTS)
async def run_for_ag_ui(agent_id: str, body: Body, caller: CallerOf, services: ServicesOf) -> EventStream:
    """Run an agent and answer with AG-UI's events.

    The conversation is kept here under the thread's id, so that of the messages only the newest count.
    The agent may call the client's own tools, whose results come with the next request.
    """
    loaded = _load(body.messages)
    return await adapters.stream(
        AGUIAdapter, body, services, agent_id, caller, loaded=loaded, conversation_id=body.thread_id
    )
