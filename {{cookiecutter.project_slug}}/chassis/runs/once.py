"""Tools that are not to do a thing twice, however often their run is begun.

A run in the background is begun again where its process has died. A call of a tool that had not ended by then is made
again, unless the tool says `@once`:

    @AGENT.tool
    @once
    async def send_invoice(ctx: RunContext[Deps], customer: str) -> str: ...

Then a call that was done isn't repeated: its result is given again. One of which nobody knows whether it was done
isn't repeated either, and the model is told so. What the tool raises counts as not done.

A call that a person has approved is always done so: the word was for one.
"""

import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from uuid import UUID

from pydantic_ai import ApprovalRequired, CallDeferred, RunContext
from pydantic_ai.messages import ToolReturn, is_multi_modal_content
from pydantic_core import to_jsonable_python
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from chassis.agents.deps import Deps
from chassis.database.jsonb import encodable
from chassis.runs.attempts import patiently
from chassis.runs.tables import BackgroundCall

UNKNOWN = (
    "Unknown result: the service stopped before what came of this was kept. It may or may not have been done, "
    "and was not done again."
)

# The call that is carried out in this task: where a person has approved it, its tool needn't see to that too.
CARRIED: ContextVar[tuple[UUID, str] | None] = ContextVar("carried", default=None)

P = ParamSpec("P")
Tool = Callable[Concatenate[RunContext[Deps], P], Awaitable[Any]]


def once(tool: Tool[P]) -> Tool[P]:
    """Make a tool that does each call of the model's at most once. Its results must be such that JSON can hold them."""

    @wraps(tool)
    async def call(ctx: RunContext[Deps], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        is_carried = CARRIED.get() == (ctx.deps.run_id, ctx.tool_call_id)
        if not ctx.deps.in_background or ctx.tool_call_id is None or is_carried:
            return await tool(ctx, *args, **kwargs)
        return await at_most_once(ctx.deps, ctx.tool_call_id, lambda: tool(ctx, *args, **kwargs))

    return call


async def at_most_once(
    deps: Deps, tool_call_id: str, do: Callable[[], Awaitable[Any]], *, even_failed: bool = False
) -> Any:
    """Carry out a call of a run in the background, unless it was begun before; then tell what came of it.

    With `even_failed` one that raised an error counts as begun too. Of a result that JSON can't hold, or that is more
    than what the model is told, nothing is known afterwards.
    """
    table, sessions = BackgroundCall, deps.sessions
    this = (table.run_id == deps.run_id, table.tool_call_id == tool_call_id)
    async with sessions.begin() as session:
        begun = insert(table).values(run_id=deps.run_id, tool_call_id=tool_call_id)
        if await session.scalar(begun.on_conflict_do_nothing().returning(table.run_id)) is None:
            result = await session.scalar(select(table.result).where(*this))
            return UNKNOWN if result is None else json.loads(result)
    carried = CARRIED.set((deps.run_id, tool_call_id))
    try:
        returned = await do()
    except Exception as error:
        if even_failed and not isinstance(error, ApprovalRequired | CallDeferred):
            raise
        async with sessions.begin() as session:
            await session.execute(delete(table).where(*this))
        raise
    finally:
        CARRIED.reset(carried)
    if (result := _as_json(returned)) is not None:

        async def keep() -> None:
            async with sessions.begin() as session:
                await session.execute(update(table).where(*this).values(result=result))

        await patiently(keep)
    return returned


def _as_json(returned: Any) -> str | None:
    for part in returned if isinstance(returned, list | tuple) else [returned]:
        if isinstance(part, ToolReturn) or is_multi_modal_content(part):
            return None
    try:
        return encodable(json.dumps(to_jsonable_python(returned)))
    except ValueError:  # pydantic's own error is one
        return None
