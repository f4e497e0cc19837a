"""Whether the service does what its OpenAPI document says, whatever it is sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.schemas import BaseSchema
from sqlalchemy import URL

from tests.conftest import create_key, serving


@pytest.fixture(scope="session")
def documented(database: URL, logs: Path) -> Iterator[BaseSchema]:
    """The document of the service, which wants a key; the demonstration model answers."""
    key = create_key(database, "schemathesis")
    with serving(logs / "documented", database, API_KEYS_REQUIRED="true") as client:
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        schema.config.update(headers={"Authorization": f"Bearer {key}"})
        yield schema


@schemathesis.pytest.from_fixture("documented").parametrize()
@settings(
    max_examples=5,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_service_keeps_to_its_document(case: schemathesis.Case[Any]) -> None:
    # Made-up names would never get beyond "There is no agent".
    if "agent_id" in case.path_parameters:
        case.path_parameters["agent_id"] = "assistant"
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "assistant"
    # Some rules no schema can tell: that a cursor is one of ours, or who must have the last word.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
