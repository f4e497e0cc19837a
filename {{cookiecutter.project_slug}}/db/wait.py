"""Wait, for a bounded time, until the database answers: ``python -m db.wait``."""

import logging
import os
import sys

from sqlalchemy import create_engine, pool

from db.connecting import DatabaseUnavailableError, connect
from db.settings import DatabaseSettings, SettingsError, read_seconds

DEFAULT_TIMEOUT = 60


def main() -> int:
    """Wait for WAIT_FOR_DB_TIMEOUT seconds at most; return 0 if the database answers, else 1."""
    logging.basicConfig(format="%(message)s")
    try:
        timeout = read_seconds(os.environ, "WAIT_FOR_DB_TIMEOUT", DEFAULT_TIMEOUT)
        url = DatabaseSettings.from_env().url
        if url is not None:  # whoever connects first starts the embedded one
            arguments = {"application_name": "wait", "connect_timeout": 5}
            connect(create_engine(url, poolclass=pool.NullPool, connect_args=arguments), timeout).close()
    except (DatabaseUnavailableError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
