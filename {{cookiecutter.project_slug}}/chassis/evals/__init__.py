"""Evaluation: the team's cases, asked of the agents as callers ask, and judged. `python -m chassis evals`."""
