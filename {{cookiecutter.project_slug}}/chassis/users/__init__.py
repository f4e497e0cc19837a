"""People who call: who an OpenID provider says they are, and what each may use."""
