"""API keys: who calls, what each key may do, and what it has used."""
