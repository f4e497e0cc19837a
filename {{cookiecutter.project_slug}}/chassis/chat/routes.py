"""`/`: a page to talk to the agents, made of the files in this folder. It uses the API as any other client."""

import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.staticfiles import StaticFiles

from chassis.http.settings import ApiSettings
from chassis.settings import RuntimeEnv, read_bool

router = APIRouter(include_in_schema=False)
# The page holds no data, so anybody may load it: what it shows comes from the API, with the key.
PUBLIC = True

VERSIONED = re.compile(r"-\d+(\.\d+)+\.js$")
FILES = StaticFiles(directory=Path(__file__).parent)
HEADERS = {
    # Only our own files run, and nothing leaves for elsewhere, whatever a model writes.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def enabled(settings: ApiSettings, env: Mapping[str, str]) -> bool:
    """Tell whether there is a page: in development, elsewhere only with CHAT_PAGE=True."""
    return read_bool(env, "CHAT_PAGE", default=settings.runtime_env is RuntimeEnv.DEV)


@router.get("/")
@router.get("/chat/{name}")
async def file(request: Request, name: str = "index.html") -> Response:
    """Answer with a file of the page, or that the one which the browser keeps is still good."""
    if not name.endswith((".html", ".css", ".js")):
        raise HTTPException(404)
    response = await FILES.get_response(name, request.scope)
    response.headers.update(HEADERS)
    # A library has its version in its name: what is kept of it never has to be asked for again.
    forever = VERSIONED.search(name)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
    return response
