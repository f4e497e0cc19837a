"""Files that people send to agents: checked when they come, kept once, and read for what a model is sent."""
