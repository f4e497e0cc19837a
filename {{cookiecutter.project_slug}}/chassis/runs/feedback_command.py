"""What people think of answers, for the team: `python -m chassis feedback [--thumb down] [--agent ID]`."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC

from sqlalchemy import select
from sqlalchemy.orm import Session

from chassis.keys.shared import count, run, table
from chassis.runs.tables import Run, RunFeedback, Thumb


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chassis feedback", description="What people think of answers, the newest first."
    )
    parser.add_argument("--thumb", choices=[thumb.value for thumb in Thumb], help="only these")
    parser.add_argument("--agent", metavar="ID", help="only of answers of this agent")
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="how many, 50 unless told")
    parser.set_defaults(command=_list)
    return run(parser.parse_args(arguments), "runs and run_feedback")


def _list(session: Session, options: argparse.Namespace) -> Iterator[str]:
    query = select(RunFeedback, Run.agent_id).join(Run).order_by(RunFeedback.given_at.desc())
    if options.thumb:
        query = query.where(RunFeedback.thumb == Thumb(options.thumb))
    if options.agent:
        query = query.where(Run.agent_id == options.agent)
    rows = session.execute(query.limit(options.limit)).all()
    lines = [
        (
            f"{row.given_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            row.thumb.value,
            agent,
            str(row.run_id),
            _one_line(row.words),
        )
        for row, agent in rows
    ]
    yield from table([("GIVEN (UTC)", "THUMB", "AGENT", "RUN", "WORDS"), *lines])


def _one_line(words: str | None) -> str:
    return " ".join(words.split()) if words else "-"
