"""A page to talk to the agents."""
