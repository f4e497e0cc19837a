"""The agents: what they are, which model they use, and how their conversations are kept."""

import os

# pydantic-ai greets a terminal with a banner at the first run, which has no place in a service's log.
os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
