"""The history of the database, one revision a change, and what Alembic needs to run it."""
