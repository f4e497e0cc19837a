"""The least that serves an agent: FastAPI, with pydantic-ai and OpenAI's model imported."""

from fastapi import FastAPI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

agent = Agent(instructions="You are a helpful assistant.")
models = OpenAIChatModel
app = FastAPI()


@app.get("/ready")
async def ready() -> dict[str, str]:
    """Tell that it serves."""
    return {"status": "ok"}
