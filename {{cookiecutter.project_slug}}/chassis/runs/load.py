"""How many runs a process has underway, of those that it carries at most: what scaling goes by.

CPU alone doesn't tell: runs that wait for a slow model take none, and take the places all the same.
"""

import logging
import time

from opentelemetry import metrics

SECONDS = 60

logger = logging.getLogger(__name__)
# Count for nobody unless telemetry is on, see chassis/telemetry.
meter = metrics.get_meter(__name__)
underway_runs = meter.create_up_down_counter("agent.runs.underway", description="Runs that are underway.")
refused_runs = meter.create_counter("agent.runs.refused", description="Runs for which there was no room.")


class LoadLog:
    """Writes a line a minute, with the mean since the last one, which a platform can make a metric of."""

    def __init__(self, at_most: int) -> None:
        """Take how many runs the process carries."""
        self._at_most = at_most
        self._begin()

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._seen: list[int] = []

    def note(self, underway: int) -> None:
        """Take note of how many runs are underway now; to be called in equal steps."""
        self._seen.append(underway)
        if time.monotonic() - self._since < SECONDS:
            return
        mean = sum(self._seen) / len(self._seen)
        fields = {"runs_underway": round(mean, 1), "runs_percent": round(100 * mean / self._at_most, 1)}
        logger.info(
            "Runs underway: %s of %s", fields["runs_underway"], self._at_most, extra={"fields": fields}
        )
        self._begin()
