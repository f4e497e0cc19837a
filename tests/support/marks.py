"""Which rows of a table of cases `make test` takes, and which it leaves to `make test-all`."""

from collections.abc import Collection
from typing import Any

import pytest


def quick_are(quick: Collection[str], cases: dict[str, Any]) -> list[Any]:
    """Return the cases, by name; those that aren't among the quick ones are marked as `full`."""
    assert set(quick) <= cases.keys(), f"there is no case {set(quick) - cases.keys()}"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=() if name in quick else pytest.mark.full,
        )
        for name, case in cases.items()
    ]
