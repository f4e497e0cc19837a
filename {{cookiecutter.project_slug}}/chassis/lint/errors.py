"""What can go wrong with the check itself."""

from chassis.settings import ChassisError


class LintError(ChassisError):
    """The check itself can't be made; the message says what to do."""
