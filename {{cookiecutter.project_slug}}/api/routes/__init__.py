"""The API's paths, one module a resource: each module of this folder with a `router` is served.

A module may say with `PUBLIC = True` that callers need no key for its paths, and with a function
`enabled(settings, env)` whether they are there at all.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter, Depends

from api.auth import authenticate
from api.settings import ApiSettings


def routers(settings: ApiSettings, env: Mapping[str, str]) -> Iterator[APIRouter]:
    """Yield a router for each module, with what keeps its paths shut."""
    for found in iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        if getattr(module, "enabled", lambda *_: True)(settings, env):
            public = getattr(module, "PUBLIC", False)
            router = APIRouter(dependencies=[] if public else [Depends(authenticate)])
            router.include_router(module.router)
            yield router
