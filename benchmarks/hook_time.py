"""How much time the hook that runs after a bake takes for itself."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from workshop import TEMPLATE, Workshop

TRACE = Path(__file__).resolve().parent / "trace"


@dataclass(frozen=True)
class HookTime:
    """Seconds of one hook's process, from its start to its end, and of the commands that it ran."""

    process: float
    commands: float


def time_hooks(workshop: Workshop) -> tuple[HookTime, HookTime]:
    """Bake once with the default answers, apart from git, and return the times of both hooks: before, after."""
    log = workshop.folder / "trace.jsonl"
    log.unlink(missing_ok=True)
    workspace, _ = workshop.bake(
        TEMPLATE, "init_git=no", extra={"PYTHONPATH": str(TRACE), "BENCH_TRACE": str(log)}
    )
    shutil.rmtree(workspace.parent)
    spans = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    parents = {parent for parent, *_ in spans}
    # The hooks are what Cookiecutter started: the children of the one process that is nobody's child.
    (cookiecutter,) = parents - {pid for _, pid, *_ in spans}
    before, after = sorted(
        (began, ended, pid) for parent, pid, began, ended, _ in spans if parent == cookiecutter
    )
    commands = sum(ended - began for parent, _, began, ended, _ in spans if parent == after[2])
    return HookTime(before[1] - before[0], 0.0), HookTime(after[1] - after[0], commands)
