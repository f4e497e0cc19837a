"""Wait, for a bounded time, until the database answers: ``python -m db.wait``."""

import math
import os
import sys
from collections.abc import Mapping
from time import monotonic, sleep

from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError, OperationalError

from db.settings import DatabaseSettings, SettingsError

DEFAULT_TIMEOUT = 60.0
PAUSE = 0.5
TELL_EVERY = 5.0
ATTEMPT_TIMEOUT = 5

# What a server says of settings that no waiting can put right. A failed connection carries no
# SQLSTATE (libpq hands over the text alone), so the words decide; words unknown here are waited for.
REFUSALS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist")


class DatabaseUnavailableError(Exception):
    """The database didn't answer in time, or refused us for good; the message says why."""


def read_timeout(env: Mapping[str, str]) -> float:
    """Read WAIT_FOR_DB_TIMEOUT, in seconds.

    Raises:
        SettingsError: for anything but a finite number above 0.
    """
    value = env.get("WAIT_FOR_DB_TIMEOUT") or str(DEFAULT_TIMEOUT)
    try:
        timeout = float(value)
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise SettingsError(f"WAIT_FOR_DB_TIMEOUT must be a number of seconds above 0, not {value!r}.")
    return timeout


def one_line(error: DBAPIError) -> str:
    """What the driver says of an error; libpq spreads it over several lines."""
    return " ".join(str(error.orig).split())


def wait(settings: DatabaseSettings, timeout: float) -> None:
    """Return as soon as the database answers; at once where it is the embedded one.

    Args:
        settings: where the database is.
        timeout: how long to wait at most, in seconds.

    Raises:
        DatabaseUnavailableError: if it doesn't answer in time, or refuses the user, password or name.
    """
    if settings.url is None:
        return  # whoever connects first starts it
    place = f"{settings.url.host or 'localhost'}:{settings.url.port or 5432}"
    began, told = monotonic(), -math.inf
    while True:
        left = began + timeout - monotonic()
        connect_timeout = max(1, min(ATTEMPT_TIMEOUT, math.ceil(left)))
        engine = create_engine(
            settings.url,
            poolclass=pool.NullPool,
            connect_args={"application_name": "wait", "connect_timeout": connect_timeout},
        )
        try:
            engine.connect().close()
        except OperationalError as error:
            reason = one_line(error)
            if any(refusal in reason for refusal in REFUSALS):
                raise DatabaseUnavailableError(f"The database at {place} refuses us: {reason}") from None
        except DBAPIError as error:
            raise DatabaseUnavailableError(
                f"The database settings can't be used: {one_line(error)}"
            ) from None
        else:
            return
        now = monotonic()
        if now + PAUSE >= began + timeout:
            raise DatabaseUnavailableError(
                f"The database at {place} did not answer in {timeout:g} s: {reason}"
            )
        if now - told >= TELL_EVERY:
            print(f"Waiting for the database at {place}, up to {timeout:g} s: {reason}", file=sys.stderr)
            told = now
        sleep(PAUSE)


def main() -> int:
    """Wait as the environment says and return the exit code: 0 if the database answers, else 1."""
    try:
        wait(DatabaseSettings.from_env(), read_timeout(os.environ))
    except (DatabaseUnavailableError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
