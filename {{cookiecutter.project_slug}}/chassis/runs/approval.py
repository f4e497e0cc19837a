"""A person's word on a tool call: what is asked, what may be answered, and what pydantic-ai is told of it.

A tool says `requires_approval=True`, and a run that calls it ends with the status `waiting`. Its conversation is stored
with the open calls, so that a decision can go on with it at any later time, in any process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool, StringConstraints, ValidationError, model_validator
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, ToolApproved, ToolDenied
from pydantic_ai.messages import ModelRequest, ToolReturnPart
from pydantic_ai.toolsets import FunctionToolset

from chassis.agents.deps import Deps
from chassis.database.jsonb import restored, storable
from chassis.errors import RunError
from chassis.runs.arguments import what_is_wrong
from chassis.runs.tables import Run, RunStatus

# What the model is told when something else was asked before anybody has decided.
NOT_DONE = "The user gave no approval and went on with something else: this call was not carried out."


class Decision(BaseModel, extra="forbid"):
    """A person's word on one call."""

    id: Annotated[str, StringConstraints(max_length=256)] = Field(description="the call's")
    approve: StrictBool
    arguments: dict[str, Any] | None = Field(None, description="what to call it with in place of its own")
    reason: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="why not; the model is told"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.approve and self.reason is not None:
            raise ValueError("a reason goes with approve: false")
        if not self.approve and self.arguments is not None:
            raise ValueError("arguments go with approve: true")
        return self


class Decisions(BaseModel, extra="forbid"):
    """A word on each of the calls that a run waits for."""

    decisions: Annotated[list[Decision], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len({decision.id for decision in self.decisions}) < len(self.decisions):
            raise ValueError("there is more than one decision on a call")
        return self


class OpenCall(BaseModel):
    """A call that waits for a person's word, or has waited for it."""

    id: str
    name: str
    arguments: Any
    decision: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """All that a run goes on with: the run that waits, pydantic-ai's results, and the calls as its row keeps them."""

    waiting: Run
    results: DeferredToolResults
    calls: list[dict[str, Any]]


def calls_of(requests: DeferredToolRequests) -> list[dict[str, Any]]:
    """Return the calls that need approval, as JSON can hold them."""
    return [
        {"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_dict()}
        for call in requests.approvals
    ]


def words_for(run_id: UUID, calls: Sequence[Mapping[str, Any]]) -> str:
    """Say what is asked, for clients that can show nothing but words."""
    asked = "\n".join(
        f"- {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}" for call in calls
    )
    return (
        f"This needs a person's approval:\n{asked}\nDecide on the chat page, or with POST /v1/runs/{run_id}/decisions; "
        "what is asked here next goes on without it."
    )


def not_done(requests: DeferredToolRequests) -> ModelRequest:
    """Return what the model is told of calls that nobody has decided on."""
    return ModelRequest(
        [
            ToolReturnPart(call.tool_name, NOT_DONE, call.tool_call_id, outcome="denied")
            for call in requests.approvals
        ]
    )


def not_kept(requests: DeferredToolRequests) -> RunError:
    """Return the error for calls that nobody could decide on, since nothing is to be stored."""
    names = ", ".join(sorted({call.tool_name for call in requests.approvals}))
    detail = (
        f"The agent needs a person's approval for {names}, and a response that is stored: leave out store."
    )
    return _unfit(detail)


def waits_for_client(requests: DeferredToolRequests) -> RunError:
    """Return the error for a decision where a client's own tools have yet to answer, which only that client can."""
    names = ", ".join(sorted({call.tool_name for call in requests.calls}))
    detail = (
        f"The run also waits for {names}, a client's own tool: that client has to send both answers at once."
    )
    return RunError(HTTPStatus.CONFLICT, detail, final=True)


def results_of(decisions: Sequence[Decision]) -> DeferredToolResults:
    """Return the decisions as pydantic-ai takes them."""
    return DeferredToolResults(
        approvals={
            decision.id: ToolApproved(override_args=decision.arguments)
            if decision.approve
            else ToolDenied(*([decision.reason] if decision.reason else []))
            for decision in decisions
        }
    )


async def decide(
    waiting: Run, results: DeferredToolResults, agent: Agent[Deps, Any], context: RunContext[Deps]
) -> Decided:
    """Check what was decided against what was asked.

    Raises:
        RunError: if a call is unknown, left out, or has arguments that its tool doesn't take.
    """
    answers = results.to_tool_call_results()
    calls = {call["id"]: call for call in restored(waiting.calls) or ()}
    if not calls:
        raise not_waiting(waiting)
    if unknown := answers.keys() - calls.keys():
        raise _unfit(f"The run asks for no approval of {_list(unknown)}. It asks for {_list(calls)}.")
    if missing := calls.keys() - answers.keys():
        raise _unfit(f"A decision on {_list(missing)} is missing: each call needs one, in one request.")
    kept = []
    for call_id, call in calls.items():
        match answers[call_id]:
            case ToolApproved(override_args=None):
                decision: dict[str, Any] = {"approve": True}
            case ToolApproved(override_args=dict() as arguments):
                await _check_arguments(call_id, call["name"], arguments, agent, context)
                decision = {"approve": True, "arguments": arguments}
            case ToolDenied(message=reason):
                decision = {"approve": False, "reason": reason}
        kept.append({**call, "decision": decision})
    return Decided(waiting, results, storable(kept))


def decided_on(waiting: Run) -> Decided:
    """Return what was decided on the calls of a run, as its row keeps it."""
    decisions = [
        # It was checked when it was given, as long as a client's protocol may have it.
        Decision.model_construct(
            id=call["id"],
            approve=call["decision"]["approve"],
            arguments=call["decision"].get("arguments"),
            reason=call["decision"].get("reason"),
        )
        for call in restored(waiting.calls) or ()
    ]
    return Decided(waiting, results_of(decisions), waiting.calls or [])


def not_waiting(run: Run) -> RunError:
    """Return the error for a decision that nobody waits for."""
    detail = "The run waits for no decision."
    if run.status is RunStatus.CONTINUED:
        detail = f"It was decided already: the run {run.continued_by} goes on with it."
    elif run.calls and run.error:
        detail = run.error
    return RunError(HTTPStatus.CONFLICT, detail, final=True)


async def _check_arguments(
    call_id: str, name: str, arguments: dict[str, Any], agent: Agent[Deps, Any], context: RunContext[Deps]
) -> None:
    for toolset in agent.toolsets:
        async with await toolset.for_run(context) as connected:
            tool = (await connected.get_tools(context)).get(name)
        if tool is None:
            continue
        try:
            tool.args_validator.validate_python(arguments)
            wrong = (
                ""
                if isinstance(toolset, FunctionToolset)
                else what_is_wrong(arguments, tool.tool_def.parameters_json_schema)
            )
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()
            )
        if wrong:
            raise _unfit(f"The arguments for {call_id!r} don't fit the tool {name!r}: {wrong}")
        return


def _unfit(detail: str) -> RunError:
    return RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True)


def _list(ids: Any) -> str:
    return ", ".join(repr(item) for item in sorted(ids))
