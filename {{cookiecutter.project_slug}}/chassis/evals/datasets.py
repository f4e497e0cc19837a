"""Reading the team's cases."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic_evals import Dataset
from pydantic_evals.evaluators import GEval, LLMJudge

from chassis.settings import ChassisError

# What is asked, in one question or in several of one conversation; the output as JSON has it; what is told of a case.
Cases: TypeAlias = Dataset[str | list[str], Any, dict[str, Any]]
# In a case's metadata: what the demonstration can't answer.
NEEDS_MODEL = "needs_model"
JUDGES = (LLMJudge, GEval)


def load_all(folder: Path, names: Sequence[str]) -> dict[str, Cases]:
    """Return the cases of these agents, or of all that have any.

    Raises:
        ChassisError: where an agent that is named has none, or saying what is wrong with a file.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if missing := [name for name in names if name not in files]:
        there = ", ".join(files) or "none"
        raise ChassisError(
            f"There are no cases of {missing[0]!r}: write {folder.name}/{missing[0]}.yaml. There are: {there}."
        )
    own = _own_evaluators(folder)
    return {name: _load(path, own) for name, path in files.items() if not names or name in names}


def _load(path: Path, own_evaluators: Sequence[Any]) -> Cases:
    try:
        return Cases.from_file(path, custom_evaluator_types=own_evaluators)
    except (ValueError, TypeError, yaml.YAMLError, ExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        told = "\n".join(map(str, causes))
        if "custom_evaluator_types" in told:
            told += f"\nThose of your own are what EVALUATORS in {path.parent.name}/__init__.py says."
        raise ChassisError(f"{path} can't be read:\n{told}") from error


def _own_evaluators(folder: Path) -> Sequence[Any]:
    if not (folder / "__init__.py").exists():
        return ()
    own: Sequence[Any] = getattr(import_module(folder.name), "EVALUATORS", ())
    return own


def reduce_to_offline(cases: Cases) -> tuple[int, int]:
    """Take out what needs a real model. Return how many cases, and how many judgements of others."""
    before = len(cases.cases)
    cases.cases = [case for case in cases.cases if not (case.metadata or {}).get(NEEDS_MODEL)]
    judgements = len(cases.cases) * _take_judges(cases.evaluators)
    judgements += sum(_take_judges(case.evaluators) for case in cases.cases)
    return before - len(cases.cases), judgements


def _take_judges(evaluators: list[Any]) -> int:
    judges = [evaluator for evaluator in evaluators if isinstance(evaluator, JUDGES)]
    for judge in judges:
        evaluators.remove(judge)
    return len(judges)


def write(file: Path, data: bytes) -> None:
    """Write a file as a whole, or not at all.

    Raises:
        ChassisError: where it can't be written.
    """
    new = file.with_suffix(".new")
    try:
        file.parent.mkdir(exist_ok=True)
        new.write_bytes(data)
        new.replace(file)
    except OSError as error:
        raise ChassisError(f"{file.name} can't be written: {error}") from error
