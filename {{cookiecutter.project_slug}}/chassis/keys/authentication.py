"""Who may call: an API key (`python -m chassis keys`), or a person whom the issuer vouches for. In development everybody."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from chassis.http.dependencies import SettingsOf, from_state
from chassis.keys.caller import ANONYMOUS, Caller, Keys
from chassis.users.accounts import Account, Users
from chassis.users.tokens import InvalidTokenError, TokenIssuer, is_token

bearer = HTTPBearer(
    auto_error=False,
    description="An API key, made with `python -m chassis keys create NAME`, or a token of the issuer in OIDC_ISSUER.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
ForUser = Annotated[
    str | None,
    Header(
        alias="X-User-ID",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="The person that a key with the right to do so calls for, as the issuer calls the person.",
    ),
]

KeysOf = Annotated[Keys, from_state("keys")]
UsersOf = Annotated[Users, from_state("users")]
# None where no issuer is set.
IssuerOf = Annotated[TokenIssuer | None, from_state("issuer")]


async def authenticate(
    request: Request,
    credentials: Credentials,
    keys: KeysOf,
    users: UsersOf,
    issuer: IssuerOf,
    settings: SettingsOf,
    user: ForUser = None,
) -> Caller:
    """Return the caller that the request shows itself to be of.

    Raises:
        HTTPException: 401 for a key or token that doesn't count, or none where one is needed; 403 where the
            person may not call, or the caller may not name one.
        RunError: 503 where the issuer can't be asked.
    """
    shown = credentials.credentials if credentials else ""
    if shown.startswith("ak_"):
        caller = await keys.find(shown)
    elif issuer and is_token(shown):
        caller = await _person(shown, issuer, users)
    else:
        # OpenAI's clients always send some word, so where no key is needed any other will do.
        caller = None if settings.keys_required else ANONYMOUS
    if caller is None:
        raise _unauthorized("an API key that is known, not revoked and not expired", issuer)
    if user is not None:
        if not caller.acts_for_users:
            detail = "Only a key that was made with --acts-for-users may name a person: leave X-User-ID out."
            raise HTTPException(HTTPStatus.FORBIDDEN, detail)
        caller = caller.acting_for(_allowed(await users.find(user)))
    # For the line in the log, see chassis/http/middleware.py.
    request.state.owner = caller.owner
    return caller


CallerOf = Annotated[Caller, Depends(authenticate)]


async def _person(token: str, issuer: TokenIssuer, users: Users) -> Caller:
    try:
        subject = await issuer.subject(token)
    except InvalidTokenError as error:
        raise _unauthorized(
            f"another token, {error}; or an API key", issuer, 'Bearer error="invalid_token"'
        ) from error
    account = _allowed(await users.find(subject))
    return Caller(account.id, (account,))


def _allowed(account: Account | None) -> Account:
    if account is None:
        raise HTTPException(HTTPStatus.FORBIDDEN, "This person may not use the service any more.")
    return account


def _unauthorized(wanted: str, issuer: TokenIssuer | None, scheme: str = "Bearer") -> HTTPException:
    also = ", or a token of the issuer" if issuer and scheme == "Bearer" else ""
    detail = f"Send the header Authorization: Bearer KEY with {wanted}{also}."
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": scheme})
