"""Whether the service does what its OpenAPI document says, whatever it is sent."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.schemas import BaseSchema
from sqlalchemy import URL

from chassis.tests.service import create_key


@pytest.fixture(scope="session")
def documented(locked: httpx.Client, database: URL) -> BaseSchema:
    """The document of the service, which wants a key."""
    schema = schemathesis.openapi.from_url(f"{locked.base_url}/openapi.json")
    key = create_key(database, "schemathesis")

    class WithKey:
        """Shows the key, so that it is known for one, and the same is also tried without it."""

        def get(self, case: schemathesis.Case[Any], context: schemathesis.AuthContext) -> str:
            return f"Bearer {key}"

        def set(self, case: schemathesis.Case[Any], data: str, context: schemathesis.AuthContext) -> None:
            case.headers["Authorization"] = data

    schema.auth()(WithKey)
    return schema


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
