"""Who may call: whoever shows an API key (`python -m chassis keys`). In development everybody may."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from chassis.http.dependencies import SettingsOf, from_state
from chassis.keys.caller import ANONYMOUS, Caller, Keys

bearer = HTTPBearer(
    auto_error=False, description="An API key, made with `python -m chassis keys create NAME`."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


KeysOf = Annotated[Keys, from_state("keys")]


async def authenticate(
    request: Request, credentials: Credentials, keys: KeysOf, settings: SettingsOf
) -> Caller:
    """Return the caller that the request shows itself to be of.

    Raises:
        HTTPException: 401 for a key that doesn't count, or none where one is needed.
    """
    shown = credentials.credentials if credentials else ""
    caller = await keys.find(shown)
    # OpenAI's clients always send some word, so where no key is needed only what looks like one counts.
    if not settings.keys_required and not shown.startswith("ak_"):
        caller = ANONYMOUS
    if caller is None:
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "Send the header Authorization: Bearer KEY with an API key that is known, not revoked and not expired.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    # For the line in the log, see chassis/http/middleware.py.
    request.state.owner = caller.owner
    return caller


CallerOf = Annotated[Caller, Depends(authenticate)]
