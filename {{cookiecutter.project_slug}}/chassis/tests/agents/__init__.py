"""Agents for the chassis' own tests."""
