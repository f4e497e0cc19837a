"""The floor of a run: FastAPI with pydantic-ai's agent and the same tools, nothing kept."""

import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_ai import Agent

agent = Agent(
    f"openai-chat:{os.environ.get('MODEL', 'fake')}",
    instructions="You are a helpful assistant. Answer in the language of the question, briefly and plainly. Say so when you don't know something.",
)
app = FastAPI()


class Request(BaseModel):
    """A question."""

    input: str


@agent.tool_plain
def current_time(time_zone: str = "UTC") -> str:
    """Tell the date and time of now.

    Args:
        time_zone: an IANA name, for example Europe/Berlin.
    """
    return f"{datetime.now(UTC)} {time_zone}"


@agent.tool_plain
def search_conversations(words: str) -> list[str]:
    """Find the newest answers in the user's earlier conversations.

    Args:
        words: a few words, each of which is in the conversation's title or in the answer.
    """
    return [words]


@app.post("/run")
async def run(request: Request) -> dict[str, str]:
    """Answer the question."""
    return {"output": (await agent.run(request.input)).output}


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Stream the answer."""

    async def chunks() -> AsyncIterator[str]:
        async with agent.run_stream(request.input) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield f"data: {json.dumps(text)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")
