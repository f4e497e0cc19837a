"""Runs of agents: begun, streamed, kept alive, ended, and found again."""
