"""Runs in the background, more of them and for longer than the workspace's own tests take time for."""

import pytest

from tests.support.workspaces import Workspace


@pytest.mark.full
def test_fifty_runs_and_half_a_minute_without_the_database(workspace: Workspace) -> None:
    options = {"TEST_BACKGROUND_RUNS": "50", "TEST_OUTAGE_SECONDS": "30"}
    tests = (
        "test_process_that_dies_is_replaced or test_process_that_is_to_stop or test_outage_of_the_database"
    )
    workspace.run("pytest", "chassis/tests/test_background.py", "-k", tests, env=options)
