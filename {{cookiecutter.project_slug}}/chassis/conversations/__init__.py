"""Conversations, kept in our own tables through pydantic-ai's own interface."""
