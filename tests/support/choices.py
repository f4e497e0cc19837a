"""The answers that workspaces are baked with."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.workspaces import ODD_ANSWERS, QUESTIONS

PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def _single() -> Iterator[Any]:
    """Every answer that isn't the default one, the others at theirs."""
    offered = {"python_version": list(PYTHON_VERSIONS)} | {
        name: [not default] if isinstance(default, bool) else default[1:]
        for name, default in QUESTIONS.items()
        if not name.startswith("_") and isinstance(default, bool | list) and name != "install"
    }
    for name, values in offered.items():
        for value in values:
            yield pytest.param({name: value}, id=f"{name}={value}")


SINGLE = list(_single())
NONE_USED = {name: False for name in QUESTIONS if name.startswith("use_")}
# Those that say most, and the rest, which `make test` leaves to `make test-all`.
TELLING = [
    pytest.param({}, id="default"),
    pytest.param(NONE_USED, id="bare"),
    pytest.param(dict.fromkeys(NONE_USED, True), id="everything"),
    *(pytest.param(answers, id=f"odd-{number}") for number, answers in enumerate(ODD_ANSWERS)),
]
EXTREME = [
    pytest.param(
        {"project_slug": "a" * 40, "project_name": "N" * 100, "description": "D" * 300}, id="longest"
    ),
    pytest.param(
        {"project_slug": "ai", "project_name": "A", "description": "d", "author": "a"}, id="shortest"
    ),
]
