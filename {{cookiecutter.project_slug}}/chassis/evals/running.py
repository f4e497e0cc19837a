"""Asking the cases, by the same way as callers do, and telling how well they were answered."""

import argparse
import re
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic import TypeAdapter, ValidationError
from pydantic_ai import Agent, InstrumentationSettings
from pydantic_ai.models import Model
from pydantic_evals.evaluators.llm_as_a_judge import set_default_judge_model
from pydantic_evals.reporting import EvaluationReport
from rich.console import Console

from chassis.agents import demonstration
from chassis.agents.choice import first_of
from chassis.errors import RunError
from chassis.evals.datasets import Cases, reduce_to_offline, write
from chassis.keys.caller import Caller
from chassis.retention import belongings
from chassis.runs.runner import Runner
from chassis.settings import ChassisError
from chassis.users.accounts import Account

Report: TypeAlias = EvaluationReport[Any, Any, Any]
REPORT = TypeAdapter(Report)
DEMONSTRATION = f"function:{demonstration.NAME}"


async def evaluate(options: argparse.Namespace, loaded: Mapping[str, Cases], last: Path, app: str) -> int:
    """Ask the agents their cases, and tell; return 0 if enough holds for each, else 1.

    Args:
        options: as they were given to the command.
        loaded: the cases, by agent.
        last: the folder with the reports of the last time.
        app: MODULE:NAME of the service.

    Raises:
        ChassisError: where there is no such agent, or no such model.
    """
    async with _service(app) as state:
        _see_tools()
        if unknown := [name for name in loaded if name not in state["agents"]]:
            known = ", ".join(state["agents"]) or "none"
            raise ChassisError(f"{unknown[0]}.yaml is of no agent. Agents are: {known}. Rename or remove it.")
        evaluation = Evaluation(options, state, last, Console())
        held = [await evaluation.run(name, cases) for name, cases in loaded.items()]
    return 0 if all(held) else 1


@dataclass(frozen=True)
class Evaluation:
    """One call of the command."""

    options: argparse.Namespace
    state: Mapping[str, Any]
    last: Path
    console: Console

    async def run(self, agent: str, cases: Cases) -> bool:
        """Ask an agent its cases, print the table, and return whether enough holds."""
        options = self.options
        model = self._model(agent, options.model)
        is_offline = first_of(model).model_id == DEMONSTRATION
        left_out = reduce_to_offline(cases) if is_offline else (0, 0)
        if not is_offline:
            set_default_judge_model(self._model(agent, options.judge) if options.judge else model)

        async def ask(inputs: str | list[str]) -> Any:
            return await self._ask(agent, [inputs] if isinstance(inputs, str) else inputs)

        report = await cases.evaluate(
            ask,
            name=agent,
            max_concurrency=options.concurrency,
            repeat=options.repeat,
            progress=self.console.is_terminal,
        )
        name = "offline" if is_offline else first_of(model).model_id
        file = self.last / f"{agent}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.json"
        report.print(
            baseline=_read(file), console=self.console, include_reasons=True, include_durations=not is_offline
        )
        write(file, REPORT.dump_json(report, indent=1))
        return self._tell(agent, name, report, left_out)

    def _model(self, agent: str, name: str | None) -> Model:
        try:
            found: Model = self.state["models"].choose(self.state["agents"][agent].agent, name)
        except RunError as error:
            raise ChassisError(str(error)) from error
        return found

    async def _ask(self, agent: str, questions: list[str]) -> Any:
        """Ask in a conversation of its own, and return the last answer as callers get it."""
        runner: Runner = self.state["runner"]
        # Nobody else's, so that no case finds what another one has left.
        owner = f"evals-{uuid.uuid4()}"
        caller, conversation, output = Caller(owner, (Account(owner),)), None, None
        try:
            for question in questions:
                run = await runner.start(
                    agent, caller, question, conversation_id=conversation, model=self.options.model
                )
                answer = await runner.answer(run)
                conversation, output = run.conversation_id, answer.output
        finally:
            if self.options.database:
                await belongings.erase(self.state["sessions"], owner, with_usage=True)
        return output

    def _tell(self, agent: str, model: str, report: Report, left_out: tuple[int, int]) -> bool:
        held, asked = count(report)
        share = held / asked if asked else 1.0
        is_enough = bool(share >= self.options.threshold)
        verdict = "enough" if is_enough else f"NOT ENOUGH, {self.options.threshold:.0%} is wanted"
        lines = [f"{agent} ({model}): {held} of {asked} hold, {share:.0%}: {verdict}."]
        if any(left_out):
            lines.append("Left out, for want of a model: {} cases, {} judgements.".format(*left_out))
        self.console.print("\n".join(lines) + "\n", markup=False, highlight=False, soft_wrap=True)
        return is_enough


def count(report: Report) -> tuple[int, int]:
    """Return how many assertions hold, of how many. A case or an evaluator that broke off is one that doesn't.

    Scores are no assertions: the table shows them, and what they have to be an evaluator of one's own can say.
    """
    values = [result.value for case in report.cases for result in case.assertions.values()]
    broken = len(report.failures) + sum(len(case.evaluator_failures) for case in report.cases)
    return sum(values), len(values) + broken


def _see_tools() -> None:
    """Record the spans of runs for the evaluators that look at them, such as ToolCorrectness; in memory alone."""
    # Unless the service sends them somewhere already, as its settings say.
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
        Agent.instrument_all(InstrumentationSettings())


@asynccontextmanager
async def _service(app: str) -> AsyncIterator[Mapping[str, Any]]:
    """Start the service without a server: its lifespan, settings, models, limits and all."""
    module, _, name = app.partition(":")
    service = getattr(import_module(module), name)
    async with service.router.lifespan_context(service) as state:
        yield state


def _read(file: Path) -> Report | None:
    try:
        return REPORT.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        print(f"{file} is of another version: there is nothing to compare with.", file=sys.stderr)
        return None
