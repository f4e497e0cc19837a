"""Who may call: whoever shows an API key (`python -m api.keys`). In development everybody may."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agents.callers import ANONYMOUS, Caller
from api.services import ServicesOf

bearer = HTTPBearer(auto_error=False, description="An API key, made with `python -m api.keys create NAME`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def authenticate(request: Request, credentials: Credentials, services: ServicesOf) -> Caller:
    """Return the caller that the request shows itself to be of.

    Raises:
        HTTPException: 401 for a key that doesn't count, or none where one is needed.
    """
    shown = credentials.credentials if credentials else ""
    caller = await services.keys.find(shown)
    # OpenAI's clients always send some word, so where no key is needed only what looks like one counts.
    if not services.settings.keys_required and not shown.startswith("ak_"):
        caller = ANONYMOUS
    if caller is None:
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "Send the header Authorization: Bearer KEY with an API key that is known, not revoked and not expired.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    # For the line in the log, see api/limits.py.
    request.state.owner = caller.owner
    return caller


CallerOf = Annotated[Caller, Depends(authenticate)]
