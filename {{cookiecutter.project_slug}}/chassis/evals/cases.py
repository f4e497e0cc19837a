"""Making cases of runs: `python -m chassis evals add RUN_ID ...`, or of all that was judged so: `--thumb down`.

A case is added to the end of a file as text, so that what is there stays as it is written, comments and all.
"""

import argparse
import asyncio
import textwrap
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import yaml
from pydantic_ai.messages import UserPromptPart
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from chassis.conversations.contents import attachments, words
from chassis.conversations.store import DatabaseConversationStore
from chassis.database.engine import Sessions, async_engine, session_factory
from chassis.database.jsonb import restored
from chassis.evals.datasets import NEEDS_MODEL, write
from chassis.keys.shared import explain
from chassis.runs.tables import Run, RunFeedback, RunStatus, Thumb
from chassis.settings import ChassisError

WARNING = (
    "These are words of people: take out names and whatever else is private before you commit them. What is erased "
    "of the database stays in these files."
)


def _text(dumper: Any, text: str) -> Any:
    """Write a text of several lines as such."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


class Found(NamedTuple):
    """A run, what was said of it, and what was asked in its conversation up to it."""

    run: Run
    feedback: RunFeedback | None
    questions: list[str]
    is_whole: bool


def add(options: argparse.Namespace, folder: Path) -> int:
    """Add the cases, and tell of each.

    Raises:
        ChassisError: where there is no such run, or a file can't be added to. Nothing is written then.
    """
    if not options.runs and not options.thumb:
        raise ChassisError("Say which: RUN_ID, or --thumb down. `python -m chassis feedback` lists them.")
    yaml.SafeDumper.add_representer(str, _text)
    try:
        found = asyncio.run(_find(options))
    except DBAPIError as error:
        raise ChassisError(explain(error, "of runs and conversations")) from error
    files: dict[Path, str] = {}
    told = []
    for each in found:
        agent = each.run.agent_id
        file = folder / f"{agent}.yaml"
        text = files.get(file) or _read(file) or f"# What the agent {agent} must be able to answer.\ncases:\n"
        after = append(text, each, file)
        if after is None:
            told.append(f"{each.run.id} is there already.")
            continue
        files[file] = after
        told.append(f"{each.run.id} -> {file}{'' if each.is_whole else ' (without what was attached)'}")
    for file, text in files.items():
        write(file, text.encode())
    print("\n".join([*told, *([WARNING] if files else [])]) or "There are none.")
    return 0


async def _find(options: argparse.Namespace) -> list[Found]:
    engine = async_engine()
    sessions = session_factory(engine)
    try:
        query = select(Run, RunFeedback).outerjoin(RunFeedback).order_by(Run.started_at)
        if options.runs:
            query = query.where(Run.id.in_([_uuid(run) for run in options.runs]))
        if options.thumb:
            query = query.where(RunFeedback.thumb == Thumb(options.thumb))
        async with sessions() as session:
            rows = (await session.execute(query)).all()
        if missing := {_uuid(run) for run in options.runs} - {run.id for run, _ in rows}:
            raise ChassisError(f"There is no such run: {', '.join(map(str, sorted(missing)))}.")
        found = []
        for run, feedback in rows:
            try:
                found.append(await _load(sessions, run, feedback))
            except ChassisError as error:
                if options.runs:
                    raise
                print(f"Left out. {error}")
        return found
    finally:
        await engine.dispose()


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ChassisError(f"{text!r} is no run's id. `python -m chassis feedback` lists them.") from None


async def _load(sessions: Sessions, run: Run, feedback: RunFeedback | None) -> Found:
    store = DatabaseConversationStore(sessions)
    record = await store.read_record(run.conversation_id) if run.conversation_id else None
    try:
        end = await store.find_end(record, str(run.id)) if record else None
    except KeyError:
        end = None
    prompts = [
        part.content
        for entry in await store.read_history(end)
        for part in entry.message.parts
        if isinstance(part, UserPromptPart)
    ]
    if not prompts:
        raise ChassisError(
            f"Of the run {run.id} nothing is kept that could be asked again: it is {run.status}."
        )
    is_whole = not any(attachments(content) for content in prompts)
    return Found(run, feedback, [words(content) for content in prompts], is_whole)


def append(text: str, found: Found, file: Path) -> str | None:
    """Return the file's text with one more case at its end, or None where the run's is there.

    Raises:
        ChassisError: where that can't be done without changing what is there.
    """
    case = case_of(found)
    dumped = yaml.safe_dump([case], allow_unicode=True, sort_keys=False, width=110)
    item = f"# Asked of {found.run.agent_id} at {found.run.started_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.\n{dumped}"
    refusal = ChassisError(
        f"{file} must end with its list of cases, a line with a dash for each. Write it there:\n{item}"
    )
    try:
        before = yaml.safe_load(text)
        column = _column_of_cases(text)
    except yaml.YAMLError as error:
        raise ChassisError(f"{file} can't be read: {error}") from error
    if column is None:
        raise refusal
    there = before["cases"] or []
    if any(
        (known.get("metadata") or {}).get("run_id") == str(found.run.id)
        for known in there
        if isinstance(known, dict)
    ):
        return None
    after = (
        text.rstrip("\n") + "\n\n" * bool(there) + "\n" * (not there) + textwrap.indent(item, " " * column)
    )
    try:
        is_right = yaml.safe_load(after) == {**before, "cases": [*there, case]}
    except yaml.YAMLError:
        is_right = False
    if not is_right:
        raise refusal
    return after


def _column_of_cases(text: str) -> int | None:
    """Return how far the list of cases is indented, or None where it isn't the last, or of another form."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style or not root.value:
        return None
    key, cases = root.value[-1]
    if key.value != "cases":
        return None
    if isinstance(cases, yaml.SequenceNode):
        return None if cases.flow_style else cases.start_mark.column
    return 2 if cases.value == "" else None


def case_of(found: Found) -> Mapping[str, Any]:
    """Return the case: asked again, an answer that was good is the measure, and a bad one what mustn't be."""
    run, feedback, questions, _ = found
    metadata: dict[str, Any] = {"run_id": str(run.id), NEEDS_MODEL: True}
    if feedback:
        metadata["thumb"] = feedback.thumb.value
    if feedback and feedback.words:
        metadata["words"] = feedback.words
    case: dict[str, Any] = {
        "name": f"run {run.id}",
        "inputs": questions[0] if len(questions) == 1 else questions,
        "metadata": metadata,
    }
    output, is_bad = restored(run.output), feedback is not None and feedback.thumb is Thumb.DOWN
    if run.status is not RunStatus.SUCCEEDED:
        return case
    if not is_bad:
        rubric = "It says in substance the same as the expected output."
        judge = {"rubric": rubric, "include_input": True, "include_expected_output": True}
        return {**case, "expected_output": output, "evaluators": [{"LLMJudge": judge}]}
    metadata["bad_output"] = output
    if metadata.get("words"):
        rubric = (
            f"Another answer was refused with these words. This one has no such fault:\n{metadata['words']}"
        )
        case["evaluators"] = [{"LLMJudge": {"rubric": rubric, "include_input": True}}]
    return case


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
