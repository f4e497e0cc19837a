"""The tests' fixtures: a throw-away PostgreSQL, a scripted model, the service. See chassis/testing/__init__.py."""

pytest_plugins = ["chassis.testing"]
