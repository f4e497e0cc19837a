"""Work that outlives its request: runs in the background, runs on a schedule, and webhooks when they end.

Carried by procrastinate (https://procrastinate.readthedocs.io), whose tables are under our own history. Off unless
AGENT_BACKGROUND is set; then nothing of this is imported but the settings and what a schedule is.
"""
