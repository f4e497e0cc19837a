"""What a run uses, also one that fails and so has no result to ask for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai import AgentRunResult
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.usage import RunUsage, UsageLimits


@dataclass(kw_only=True)
class Meter(UsageLimits):
    """The limits of a run, which are asked before each request, and so see the usage that the run adds to.

    A capability of the run could see it too, but pydantic-ai puts the capabilities of each run together anew,
    which takes a millisecond.
    """

    _usage: RunUsage | None = field(default=None, init=False, repr=False)

    def starts_at(self, usage: RunUsage) -> None:
        """Begin with what counts already, should the run end before it asks."""
        self._usage = usage

    def check_before_request(self, usage: RunUsage) -> None:
        """Take note of the usage, and refuse a request too many."""
        self._usage = usage
        super().check_before_request(usage)

    def used_since(self, before: RunUsage) -> RunUsage:
        """Return what was used so far, beyond what the conversation had before."""
        return RunUsage() if self._usage is None else self._usage - before


def usage_of(result: AgentRunResult[Any], before: RunUsage, resumed: Sequence[ModelMessage] = ()) -> RunUsage:
    """Return the usage of one run, taken out of that of its whole conversation, with what it resumed."""
    usage = RunUsage(tool_calls=result.usage.tool_calls - before.tool_calls)
    return usage + usage_in([*resumed, *result.new_messages()])


def usage_in(messages: Iterable[ModelMessage]) -> RunUsage:
    """Return what the answers among the messages have cost."""
    usage = RunUsage()
    for message in messages:
        if isinstance(message, ModelResponse):
            usage.incr(message.usage)
            usage.requests += 1
    return usage
