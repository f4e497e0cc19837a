"""The agents: what they are, which model they use, and how their conversations are kept."""
