"""The floor of a stream: FastAPI and openai's client, each chunk written anew, nothing kept."""

import json
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

client = AsyncOpenAI()
app = FastAPI()


class Request(BaseModel):
    """A question, in OpenAI's form."""

    model: str
    messages: list[dict[str, str]]


@app.post("/v1/chat/completions")
async def answer(request: Request) -> StreamingResponse:
    """Stream the answer."""

    async def chunks() -> AsyncIterator[str]:
        stream = await client.chat.completions.create(
            model=request.model,
            messages=request.messages,  # type: ignore[arg-type]
            stream=True,
        )
        async for chunk in stream:
            for choice in chunk.choices:
                delta = {"index": 0, "delta": {"content": choice.delta.content or ""}}
                yield f"data: {json.dumps({'id': chunk.id, 'choices': [delta]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")
