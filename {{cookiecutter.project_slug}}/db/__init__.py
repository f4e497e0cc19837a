"""The database: its tables, and the history of their changes."""
