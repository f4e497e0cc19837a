"""A general assistant. Copy this module to start an agent of your own."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic_ai import Agent, ModelRetry, RunContext
from sqlalchemy import or_, select, update

from chassis.agents.deps import Deps
from db.tables import chassis as tables

# AGENT_MODEL answers, or DEFAULT_MODEL in agents/__init__.py. One of its own: see api/README.md, "Models".
AGENT = Agent(
    name="Assistant",
    description="Answers questions, knows the time, finds earlier conversations and names this one.",
    deps_type=Deps,
    instructions=(
        "You are a helpful assistant. Answer in the language of the question, briefly and plainly. "
        "Say so when you don't know something."
    ),
)


@AGENT.tool_plain
def current_time(time_zone: str = "UTC") -> str:
    """Tell the date and time of now.

    Args:
        time_zone: an IANA name, for example Europe/Berlin.
    """
    try:
        zone = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ModelRetry(
            f"There is no time zone {time_zone!r}: use an IANA name such as Europe/Berlin."
        ) from error
    return datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


@AGENT.tool
async def search_conversations(ctx: RunContext[Deps], words: str) -> list[dict[str, str]]:
    """Find the newest answers in the user's earlier conversations.

    Args:
        ctx: the run.
        words: a few words, each of which is in the conversation's title or in the answer.
    """
    run, conversation = tables.Run, tables.Conversation
    answer = run.output[()].astext
    query = (
        select(conversation.title, run.started_at, answer.label("answer"))
        .join(conversation, conversation.id == run.conversation_id)
        .where(conversation.scope == ctx.deps.owner, conversation.id != ctx.deps.conversation_id)
        .where(run.status == tables.RunStatus.SUCCEEDED)
        .order_by(run.started_at.desc())
        .limit(5)
    )
    for word in words.replace("\0", " ").split():
        query = query.where(
            or_(conversation.title.icontains(word, autoescape=True), answer.icontains(word, autoescape=True))
        )
    async with ctx.deps.sessions() as session:
        rows = (await session.execute(query)).all()
    return [
        {"title": row.title or "", "date": f"{row.started_at:%Y-%m-%d}", "answer": (row.answer or "")[:500]}
        for row in rows
    ]


@AGENT.tool(requires_approval=True)
async def change_title(ctx: RunContext[Deps], title: str) -> str:
    """Give this conversation another title. The user is asked before it happens.

    Args:
        ctx: the run.
        title: what it is to be called, in a few words.
    """
    conversation = tables.Conversation
    statement = update(conversation).where(
        conversation.id == ctx.deps.conversation_id, conversation.scope == ctx.deps.owner
    )
    async with ctx.deps.sessions.begin() as session:
        await session.execute(statement.values(title=title.replace("\0", " ")[:200]))
    return f"It is called {title!r} now."
