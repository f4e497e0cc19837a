"""What your agents must be able to answer: cases in AGENT.yaml, and evaluators of your own.

README.md, "Evaluation", tells how to write them.
"""

from typing import Any

# Classes of evaluators that the cases name besides those of pydantic-evals.
EVALUATORS: tuple[type[Any], ...] = ()
