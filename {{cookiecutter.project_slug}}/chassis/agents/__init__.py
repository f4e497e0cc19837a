"""The agents that the service is given: found, told of, and the model that answers for them."""

import os

# pydantic-ai greets a terminal with a banner at the first run, which has no place in a service's log.
os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
