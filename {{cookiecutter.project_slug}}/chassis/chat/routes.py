"""`/`: a page to talk to the agents, made of the files in this folder. It uses the API as any other client."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from chassis.errors import RunError
from chassis.http.dependencies import from_state
from chassis.http.settings import ApiSettings
from chassis.keys.authentication import IssuerOf
from chassis.settings import RuntimeEnv, read_bool
from chassis.users.settings import LOCAL, UserSettings
from chassis.users.tokens import TokenIssuer

router = APIRouter(include_in_schema=False)
# The page holds no data, so anybody may load it: what it shows comes from the API, with the key.
PUBLIC = True

VERSIONED = re.compile(r"-\d+(\.\d+)+\.js$")
FILES = StaticFiles(directory=Path(__file__).parent)
INDEX = "index.html"
# Only our own files run, and nothing leaves for elsewhere, whatever a model writes.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
# A host as it may stand in a policy, where other characters have a meaning.
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")

UserSettingsOf = Annotated[UserSettings, from_state("user_settings")]

logger = logging.getLogger(__name__)


def enabled(settings: ApiSettings, env: Mapping[str, str]) -> bool:
    """Tell whether there is a page: in development, elsewhere only with CHAT_PAGE=True."""
    return read_bool(env, "CHAT_PAGE", default=settings.runtime_env is RuntimeEnv.DEV)


# Before the files, one of which it would be else.
@router.get("/chat/sign-in")
async def sign_in(settings: UserSettingsOf, issuer: IssuerOf) -> Response:
    """Tell the page where and how people sign in; {} where they can't.

    Raises:
        RunError: 503 where the issuer can't be asked, or has nothing that could be used.
    """
    way = await _way(settings, issuer) if issuer and settings.client_id else {}
    return JSONResponse(way, headers=HEADERS | {"Cache-Control": "no-store"})


@router.get("/")
@router.get("/chat/{name}")
async def file(request: Request, settings: UserSettingsOf, issuer: IssuerOf, name: str = INDEX) -> Response:
    """Answer with a file of the page, or that the one which the browser keeps is still good."""
    if not name.endswith((".html", ".css", ".js")):
        raise HTTPException(404)
    scope: Scope = request.scope
    policy = await _policy(settings, issuer) if name == INDEX else POLICY
    if policy != POLICY:
        # Browsers keep the policy with the file, and take no other from an answer that the file is still good.
        scope = {**scope, "headers": [item for item in scope["headers"] if item[0] not in CONDITIONS]}
    response = await FILES.get_response(name, scope)
    response.headers.update(HEADERS | {"Content-Security-Policy": policy})
    # A library has its version in its name: what is kept of it never has to be asked for again.
    forever = VERSIONED.search(name)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
    if policy != POLICY:
        response.headers["Cache-Control"] = "no-store"
    return response


async def _way(settings: UserSettings, issuer: TokenIssuer) -> dict[str, str]:
    metadata = await issuer.metadata()
    needed = {name: secure(metadata, name) for name in ("authorization_endpoint", "token_endpoint")}
    if not all(needed.values()):
        detail = (
            "Nobody can sign in: the issuer has no secure endpoints for it. The service's log says which."
        )
        raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    ours = {
        "client_id": settings.client_id or "",
        "scope": settings.scope,
        "parameters": settings.parameters or "",
    }
    ending = secure(metadata, "end_session_endpoint")
    return needed | ours | ({"end_session_endpoint": ending} if ending else {})


async def _policy(settings: UserSettings, issuer: TokenIssuer | None) -> str:
    """Return the policy of the page, which calls the issuer where people may sign in."""
    if not issuer or not settings.client_id:
        return POLICY
    try:
        way = await _way(settings, issuer)
    except RunError:
        return POLICY  # and nobody can sign in, which is said when somebody tries
    endpoint = urlsplit(way["token_endpoint"])
    return POLICY.replace("connect-src 'self'", f"connect-src 'self' {endpoint.scheme}://{endpoint.netloc}")


def secure(metadata: Mapping[str, Any], name: str) -> str:
    """Return one of the issuer's addresses, or nothing where there is none that one may go to."""
    url = metadata.get(name)
    if url is None:
        return ""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    is_local = parts.scheme == "http" and host in LOCAL
    written = f"[{host}]" if ":" in host else host
    # Compared with what was read, since nothing else may stand beside it.
    is_plain = HOST.fullmatch(written) and parts.netloc.lower() == written + (f":{port}" if port else "")
    if (parts.scheme == "https" or is_local) and is_plain:
        return str(url)
    logger.warning("The issuer's %s isn't offered, since it must be https: %r", name, url)
    return ""
