"""All that CI checks, in one command: ``python -m chassis check``.

In a repository of somebody's own, to which only the migrations were added, that is what it checks: the rest has checks
of its own.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from chassis.settings import WORKSPACE


def steps(base: str | None, form: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield each step's title and command, the quickest first."""
    python = [sys.executable, "-m"]
    is_service = (WORKSPACE / "chassis" / "app.py").exists()
    if is_service:
        yield "Style", [*python, "ruff", "check"]
        yield "Format", [*python, "ruff", "format", "--check"]
        yield "Imports", [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
        yield "Types", [*python, "mypy"]
    options = {"--base": base, "--format": form}
    given = [word for name, value in options.items() if value for word in (name, value)]
    yield "Migrations", [*python, "chassis", "lint", *given]
    if is_service:
        yield "Tests", [*python, "pytest", "tests"]
        if find_spec("pydantic_evals") and any((WORKSPACE / "evals").glob("*.yaml")):
            yield "Evaluation, offline", [*python, "chassis", "evals", "--offline"]
        yield "Tests of the chassis", [*python, "pytest", "chassis/tests"]


def main(arguments: Sequence[str]) -> int:
    """Take every step, also after one that failed; return 0 if all went well, else 1."""
    parser = argparse.ArgumentParser(prog="python -m chassis check", description="All that CI checks.")
    parser.add_argument("--base", help="the git revision that counts as released, see `lint`")
    parser.add_argument("--format", help="how `lint` says what it finds, for example github")
    options = parser.parse_args(arguments)
    failed = []
    for title, command in steps(options.base, options.format):
        print(f"\n== {title}: {' '.join(['python', *command[1:]])}", flush=True)
        began = time.monotonic()
        if subprocess.run(command, cwd=WORKSPACE, check=False).returncode != 0:
            failed.append(title)
            print(f"== {title}: FAILED", flush=True)
        else:
            print(f"== {title}: ok ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nAll is well.")
    return 1 if failed else 0
