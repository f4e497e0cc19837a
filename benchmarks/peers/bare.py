"""The floor: what a person writes in an hour to pass a question on to a model and keep a row of it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# As many connections as there are clients, so that none is thrown away and made anew.
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=20)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The base of the one table."""


class Question(Base):
    """What was asked and answered."""

    __tablename__ = "bare_questions"

    id: Mapped[int] = mapped_column(primary_key=True)
    question: Mapped[str]
    answer: Mapped[str]


class Request(BaseModel):
    """A question."""

    input: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the table and the client."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with httpx.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"]) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/run")
async def run(request: Request) -> dict[str, object]:
    """Answer the question."""
    messages = [{"role": "user", "content": request.input}]
    response = await app.state.client.post("/chat/completions", json={"model": "fake", "messages": messages})
    answer = response.raise_for_status().json()["choices"][0]["message"]["content"]
    async with sessions.begin() as session:
        row = Question(question=request.input, answer=answer)
        session.add(row)
    return {"id": row.id, "output": answer}
