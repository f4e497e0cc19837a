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
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from pydantic_ai import RunContext
from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from chassis.agents.deps import Deps
from chassis.database.jsonb import encodable
from chassis.runs.attempts import patiently
from chassis.runs.tables import BackgroundCall

UNKNOWN = (
    "Unknown result: the service stopped while this was being done. It may or may not have been done, and was "
    "not done again."
)

P = ParamSpec("P")
Tool = Callable[Concatenate[RunContext[Deps], P], Awaitable[Any]]


def once(tool: Tool[P]) -> Tool[P]:
    """Make a tool that does each call of the model's at most once. Its results must be such that JSON can hold them."""

    @wraps(tool)
    async def call(ctx: RunContext[Deps], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        # One that was approved is seen to already, whatever its tool says.
        if not ctx.deps.in_background or ctx.tool_call_id is None or ctx.tool_call_approved:
            return await tool(ctx, *args, **kwargs)
        return await at_most_once(ctx.deps, ctx.tool_call_id, lambda: tool(ctx, *args, **kwargs))

    return call


async def at_most_once(deps: Deps, tool_call_id: str, do: Callable[[], Awaitable[Any]]) -> Any:
    """Carry out a call of a run in the background, unless it was begun before; then tell what came of it.

    Of a result that JSON can't hold, too, nothing is known afterwards.
    """
    table, sessions = BackgroundCall, deps.sessions
    this = (table.run_id == deps.run_id, table.tool_call_id == tool_call_id)
    async with sessions.begin() as session:
        begun = insert(table).values(run_id=deps.run_id, tool_call_id=tool_call_id)
        if await session.scalar(begun.on_conflict_do_nothing().returning(table.run_id)) is None:
            result = await session.scalar(select(table.result).where(*this))
            return UNKNOWN if result is None else json.loads(result)
    try:
        returned = await do()
    except Exception:
        async with sessions.begin() as session:
            await session.execute(delete(table).where(*this))
        raise
    with suppress(PydanticSerializationError, TypeError, ValueError):
        result = encodable(json.dumps(to_jsonable_python(returned)))

        async def keep() -> None:
            async with sessions.begin() as session:
                await session.execute(update(table).where(*this).values(result=result))

        await patiently(keep)
    return returned
