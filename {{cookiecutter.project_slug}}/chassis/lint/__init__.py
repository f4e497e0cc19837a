"""What a new revision does is tried and looked at, before anybody reviews it: ``python -m chassis lint``."""
