"""Migrations against other containers, traffic, failures and credentials, on real PostgreSQL servers."""
