"""`/v1/runs/{id}/feedback`: what a caller thinks of an answer, a thumb and words."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints
from sqlalchemy import and_, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from chassis.conversations.routes import ConversationPath, no_conversation
from chassis.conversations.tables import Conversation
from chassis.database.engine import Sessions
from chassis.http.dependencies import SessionsOf
from chassis.keys.authentication import CallerOf
from chassis.runs import metrics
from chassis.runs.tables import Run, RunFeedback, Thumb
from chassis.runs.views import RunnerOf, RunView, no_run

router = APIRouter(prefix="/v1", tags=["feedback"])

Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000, pattern=r"^[^\x00]*$")]
SHOWN = (RunFeedback.run_id, RunFeedback.thumb, RunFeedback.words, RunFeedback.given_at)


class FeedbackRequest(BaseModel, extra="forbid"):
    """What one thinks of an answer, and why."""

    thumb: Thumb
    words: Words | None = None


class Feedback(BaseModel):
    """What was said of a run's answer, and when."""

    run_id: UUID
    thumb: Thumb
    words: str | None
    given_at: datetime


class FeedbackList(BaseModel):
    """What was said of a conversation's answers, the last first."""

    feedback: list[Feedback]


class RunWithFeedback(RunView):
    """A run, how it ended if it has, and what its caller thinks of the answer."""

    feedback: Feedback | None = None


@router.post("/runs/{run_id}/feedback")
async def give_feedback(
    run_id: UUID, body: FeedbackRequest, sessions: SessionsOf, caller: CallerOf
) -> Feedback:
    """Say what you think of an answer. What you said of it before is replaced."""
    # Locked, so that who deletes the run meanwhile waits, and takes this along.
    run = select(Run.agent_id).where(Run.id == run_id, Run.owner == caller.owner)
    values: dict[str, Any] = {"thumb": body.thumb, "words": body.words or None}
    statement = insert(RunFeedback).values(run_id=run_id, owner=caller.owner, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["run_id"], set_={**values, "given_at": func.now()}
    )
    async with sessions.begin() as session:
        agent = await session.scalar(run.with_for_update(read=True, key_share=True))
        if agent is None:
            raise no_run(run_id)
        row = (await session.execute(statement.returning(*SHOWN))).one()
    metrics.feedback.add(1, {"agent": agent, "thumb": body.thumb.value})
    return Feedback(**row._asdict())


@router.delete("/runs/{run_id}/feedback", status_code=HTTPStatus.NO_CONTENT)
async def take_feedback_back(run_id: UUID, runner: RunnerOf, sessions: SessionsOf, caller: CallerOf) -> None:
    """Take back what you said of an answer."""
    if await runner.records.read(run_id, caller.owner) is None:
        raise no_run(run_id)
    async with sessions.begin() as session:
        await session.execute(delete(RunFeedback).where(RunFeedback.run_id == run_id))


@router.get("/conversations/{conversation_id}/feedback", tags=["conversations"])
async def list_feedback(
    conversation_id: ConversationPath, sessions: SessionsOf, caller: CallerOf
) -> FeedbackList:
    """List what you said of a conversation's answers."""
    of_it = and_(Run.conversation_id == Conversation.id, Run.owner == caller.owner)
    query = (
        select(*SHOWN)
        .select_from(Conversation)
        .outerjoin(Run, of_it)
        .outerjoin(RunFeedback)
        .where(Conversation.id == conversation_id, Conversation.scope == caller.owner)
        .order_by(RunFeedback.given_at.desc())
    )
    async with sessions() as session:
        rows = (await session.execute(query)).all()
    if not rows:
        raise no_conversation(conversation_id)
    return FeedbackList(feedback=[Feedback(**row._asdict()) for row in rows if row.run_id])


async def read(sessions: Sessions, run_id: UUID) -> Feedback | None:
    """Return what was said of a run's answer, if anything was."""
    async with sessions() as session:
        row = (await session.execute(select(*SHOWN).where(RunFeedback.run_id == run_id))).one_or_none()
    return Feedback(**row._asdict()) if row else None
