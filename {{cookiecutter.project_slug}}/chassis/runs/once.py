"""Tools that are not to do a thing twice, however often their run is begun.

A run in the background is begun again where its process has died. A call of a tool that had not ended by then is made
again, unless the tool says `@once`:

    @AGENT.tool
    @once
    async def send_invoice(ctx: RunContext[Deps], customer: str) -> str: ...

Then a call that was done isn't repeated: its result is given again. One of which nobody knows whether it was done
isn't repeated either, and the model is told so. What the tool raises counts as not done.
"""

import json
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from pydantic_ai import RunContext
from pydantic_core import to_jsonable_python
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
        if not ctx.deps.in_background or ctx.tool_call_id is None:
            return await tool(ctx, *args, **kwargs)
        table, sessions = BackgroundCall, ctx.deps.sessions
        key = {"run_id": ctx.deps.run_id, "tool_call_id": ctx.tool_call_id}
        this = (table.run_id == ctx.deps.run_id, table.tool_call_id == ctx.tool_call_id)
        async with sessions.begin() as session:
            begun = insert(table).values(**key).on_conflict_do_nothing().returning(table.run_id)
            if await session.scalar(begun) is None:
                result = await session.scalar(select(table.result).where(*this))
                return UNKNOWN if result is None else json.loads(result)
        try:
            returned = await tool(ctx, *args, **kwargs)
        except Exception:
            async with sessions.begin() as session:
                await session.execute(delete(table).where(*this))
            raise
        result = encodable(json.dumps(to_jsonable_python(returned)))

        async def keep() -> None:
            async with sessions.begin() as session:
                await session.execute(update(table).where(*this).values(result=result))

        await patiently(keep)
        return returned

    return call
