"""Runs on a schedule, as a service declares them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chassis.agents.registry import Agents
from chassis.keys.caller import Caller
from chassis.settings import SettingsError
from chassis.users.accounts import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A question that an agent is asked at certain times, each time once, whatever the number of replicas.

    Args:
        name: what tells it from others. Its runs belong to `schedule:NAME`, unless `owner` says otherwise.
        cron: when, in UTC, as cron writes it: minute, hour, day, month, day of the week.
        agent: the id of the agent.
        input: the question.
        owner: the id of an API key, or `user:` and a person's, who is then to find the runs and conversations.
        webhook: the address that is told of each end.
    """

    name: str
    cron: str
    agent: str
    input: str
    owner: str | None = None
    webhook: str | None = None

    @property
    def caller(self) -> Caller:
        """Whose its runs are. The limits of people and keys don't hold for them."""
        owner = self.owner or f"schedule:{self.name}"
        return Caller(owner, (Account(owner),))


def check(schedules: Iterable[Schedule], agents: Agents) -> None:
    """Check what a service declares.

    Raises:
        SettingsError: saying which schedule can't be kept, and why.
    """
    # Here, since it is read only where a schedule is declared.
    from croniter import croniter  # type: ignore[import-untyped]

    is_valid: Any = croniter.is_valid
    names: set[str] = set()
    for schedule in schedules:
        what = f"The schedule {schedule.name!r}"
        if schedule.name in names:
            raise SettingsError(f"{what} is declared twice: give each a name of its own.")
        names.add(schedule.name)
        if not is_valid(schedule.cron):
            raise SettingsError(
                f"{what} has the cron expression {schedule.cron!r}, which is none: write minute, hour, day, month "
                "and day of the week, such as '30 6 * * 1-5'."
            )
        if schedule.agent not in agents:
            raise SettingsError(
                f"{what} asks the agent {schedule.agent!r}, which isn't there. There are: {', '.join(agents)}."
            )
        if not schedule.input.strip():
            raise SettingsError(f"{what} asks nothing: give it an input.")
