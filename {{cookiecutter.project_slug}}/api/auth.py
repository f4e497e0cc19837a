"""Who may call: whoever shows API_TOKEN. In development without one, everybody."""

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

bearer = HTTPBearer(auto_error=False, description="The value of API_TOKEN.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def token_required(token: str | None) -> Callable[..., None]:
    """Make the dependency that lets pass only those who show the token; with None it lets all pass."""

    def check(credentials: Credentials) -> None:
        if token is None:
            return
        shown = credentials.credentials if credentials else ""
        if not secrets.compare_digest(shown.encode(), token.encode()):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED,
                "Send the header Authorization: Bearer TOKEN with the value of API_TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check
