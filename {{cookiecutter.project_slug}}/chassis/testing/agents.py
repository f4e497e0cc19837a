"""For tests of one agent without the service: a run to hand to its tools, and a model that calls one of them."""

import uuid
from typing import Any

from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy import insert

from chassis import tables
from chassis.agents.deps import Deps
from chassis.database.engine import Sessions


async def add_run(
    sessions: Sessions, owner: str, title: str = "", output: Any = None, status: str = "succeeded"
) -> Deps:
    """Write a run of the owner's in a conversation of its own, and return what its tools get."""
    run, conversation = uuid.uuid4(), Conversation().conversation_id
    async with sessions.begin() as session:
        await session.execute(
            insert(tables.Conversation).values(id=conversation, scope=owner, title=title, revision="1")
        )
        await session.execute(
            insert(tables.Run).values(
                id=run,
                conversation_id=conversation,
                agent_id="assistant",
                model="m",
                owner=owner,
                output=output,
                status=status,
            )
        )
    return Deps(sessions, run, conversation, owner)


def calling(tool: str, arguments: dict[str, Any]) -> FunctionModel:
    """Make a model that calls one tool and then says what it got."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        part = messages[-1].parts[-1]
        if isinstance(part, ToolReturnPart):
            return ModelResponse(parts=[TextPart(f"Got {part.model_response_str()}")])
        return ModelResponse(parts=[ToolCallPart(tool, arguments)])

    return FunctionModel(answer)
