"""How long runs have taken: what the model and the tools took, not how long this process was behind with everything."""

import asyncio
import time
from collections.abc import Callable

TICK_SECONDS = 0.1
# So late is a process that has nothing else to do, too.
TOLERATED_SECONDS = 0.02


class Clock:
    """Stands still for as long as the process can't keep up.

    Under overload an answer waits here, not at its provider, which has been paid for it by then.
    """

    def __init__(self) -> None:
        self._late = 0.0

    def now(self) -> float:
        """Return the seconds since some moment, without those that the process was late."""
        return time.monotonic() - self._late

    async def keep(self, tick: Callable[[], None]) -> None:
        """Notice lateness, for as long as the task lives, and call `tick` several times a second."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - before - TICK_SECONDS
            if late > TOLERATED_SECONDS:
                self._late += late
            tick()
