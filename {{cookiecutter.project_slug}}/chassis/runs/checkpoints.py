"""What a run in the background keeps on its way, so that another attempt needn't ask or do again what was."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai import CallToolsNode, ModelRequestNode, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, RetryPromptPart, ToolCallPart, ToolReturnPart
from pydantic_ai.tools import ToolDefinition

from chassis.agents.deps import Deps
from chassis.runs.once import at_most_once
from chassis.runs.started import own_messages


@dataclass
class Checkpoints(AbstractCapability[Deps]):
    """Hands over all that was said since a run's prompt, before tools are called and before the model is asked again.

    `resumed` is what an earlier attempt had kept: the beginning of it.
    """

    run_id: str
    resumed: Sequence[ModelMessage]
    save: Callable[[Sequence[ModelMessage]], Awaitable[None]]

    async def before_node_run(self, ctx: RunContext[Deps], *, node: Any) -> Any:
        """Hand it over where something new was said."""
        if isinstance(node, CallToolsNode) and node.model_response.tool_calls:
            await self.save(self._said(ctx.messages))
        elif isinstance(node, ModelRequestNode) and any(
            isinstance(part, ToolReturnPart | RetryPromptPart) for part in node.request.parts
        ):
            await self.save([*self._said(ctx.messages), replace(node.request, run_id=self.run_id)])
        return node

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Deps],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> Any:
        """Carry out a call that a person has approved at most once, whatever its tool says."""
        if not ctx.tool_call_approved:
            return await handler(args)
        return await at_most_once(ctx.deps, call.tool_call_id, lambda: handler(args), even_failed=True)

    def _said(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        return [*self.resumed, *own_messages(messages, self.run_id, self.resumed)]
