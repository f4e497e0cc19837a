"""What makes Alembic's commands safe beside other containers and traffic, and autogenerate right."""
