"""The database: where it is, what is in it, and how it changes."""
