"""Your own endpoints: each module here that sets `router` is served.

Callers need an API key for its paths, as for all others, unless the module says `PUBLIC = True`.
"""
