"""Tokens of an OpenID provider, as far as one can tell without the libraries that check them."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class InvalidTokenError(Exception):
    """The token doesn't count; the message says why, without a word of what is in it."""


class TokenIssuer(Protocol):
    """Whoever vouches for people, see chassis/users/issuer.py."""

    async def subject(self, token: str) -> str:
        """Return whose token it is, by the issuer's name for the person."""

    async def metadata(self) -> Mapping[str, Any]:
        """Return what the issuer publishes of itself."""


def is_token(text: str) -> bool:
    """Tell whether it has the form of a JSON web token."""
    return TOKEN.fullmatch(text) is not None
