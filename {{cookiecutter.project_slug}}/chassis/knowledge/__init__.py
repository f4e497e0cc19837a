"""Documents that an agent answers from: cut into passages, and found by meaning and by words."""
