"""Wait, for a bounded time, until the database answers: ``python -m chassis wait``."""

import logging
import os
from collections.abc import Sequence

from sqlalchemy import create_engine, pool

from chassis.database.connection import connect
from chassis.database.settings import DatabaseSettings
from chassis.settings import read_seconds

DEFAULT_TIMEOUT = 60


def main(arguments: Sequence[str]) -> int:
    """Wait for WAIT_FOR_DB_TIMEOUT seconds at most.

    Raises:
        ChassisError: where the database doesn't answer, or a setting is wrong.
    """
    logging.basicConfig(format="%(message)s")
    timeout = read_seconds(os.environ, "WAIT_FOR_DB_TIMEOUT", DEFAULT_TIMEOUT)
    url = DatabaseSettings.from_env().url
    if url is not None:  # whoever connects first starts the embedded one
        options = {"application_name": "wait", "connect_timeout": 5}
        connect(create_engine(url, poolclass=pool.NullPool, connect_args=options), timeout).close()
    return 0
