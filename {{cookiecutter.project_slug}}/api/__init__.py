"""The HTTP service: what it is made of, and your own endpoints."""
