"""The OpenID provider that vouches for people: its metadata, its keys, and what it says in a token.

https://openid.net/specs/openid-connect-discovery-1_0.html and https://www.rfc-editor.org/rfc/rfc9068
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from chassis.errors import RunError
from chassis.users.settings import LOCAL, UserSettings
from chassis.users.tokens import InvalidTokenError

# Signatures that a public key checks. Never HS256, whose key would be the public one, nor none.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
# Of an access token or of one that says nothing. What is issued for something else, such as a logout, is none.
TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
# So long keys count without being asked for again, and so long at most where the issuer can't be reached.
FRESH_SECONDS = 600
STALE_SECONDS = 86_400
# A token may name a key that is new at the issuer, or none at all: so often at most it is asked because of one.
RETRY_SECONDS = 10
TIMEOUT_SECONDS = 5
MAX_BYTES = 1_000_000
MAX_SUBJECT = 255

INVALID = (JoseError, ValueError)
UNREACHABLE = (httpx2.HTTPError, httpx2.InvalidURL, JoseError, ValueError, TypeError, KeyError)

logger = logging.getLogger(__name__)


class Issuer:
    """Checks the tokens of one issuer, with its keys in memory."""

    def __init__(self, settings: UserSettings) -> None:
        """Take the settings, which must name an issuer; nothing is fetched yet."""
        self._issuer = str(settings.issuer)
        self._audience = str(settings.audience)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=settings.leeway_seconds,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None
        self._metadata: Mapping[str, Any] = {}
        self._keys: KeySet | None = None
        self._fetched = self._tried = float("-inf")

    async def subject(self, token: str) -> str:
        """Return whose token it is, by the issuer's name for the person.

        Raises:
            InvalidTokenError: if it isn't one of the issuer's for this service, or not any more.
            RunError: 503 where the issuer's keys are needed and can't be had.
        """
        try:
            header = jws.extract_compact(token.encode()).headers()
        except INVALID as error:
            raise InvalidTokenError("it is no JSON web token") from error
        if str(header.get("typ") or "").lower() not in TYPES:
            raise InvalidTokenError("it is of another type")
        if header.get("alg") not in ALGORITHMS:
            raise InvalidTokenError("it isn't signed in a way that counts")
        try:
            claims = (await self._decode(token, header.get("kid"))).claims
            self._claims.validate(claims)
        except INVALID as error:
            raise InvalidTokenError(_why(error)) from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise InvalidTokenError("its subject is none that can be kept")
        return subject

    async def metadata(self) -> Mapping[str, Any]:
        """Return the issuer's metadata.

        Raises:
            RunError: 503 where it can't be had.
        """
        await self._refresh(force=False)
        return self._metadata

    async def _decode(self, token: str, key_id: object) -> jwt.Token:
        await self._refresh(force=False)
        # The issuer has a new key, perhaps. One without a name shows so only by a signature that doesn't hold.
        if key_id is not None and key_id not in {key.kid for key in self._keys or ()}:
            await self._refresh(force=True)
        try:
            return jwt.decode(token, self._present(), algorithms=ALGORITHMS)
        except INVALID:
            if key_id is not None:
                raise
        await self._refresh(force=True)
        return jwt.decode(token, self._present(), algorithms=ALGORITHMS)

    def _present(self) -> KeySet:
        if self._keys is None:
            raise _unreachable()
        return self._keys

    async def _refresh(self, *, force: bool) -> None:
        asked = time.monotonic()
        age = asked - self._fetched
        if age < FRESH_SECONDS and not force:
            return
        if age < STALE_SECONDS and not force:
            # Nobody has to wait for an issuer that is slow, or away.
            if self._renewing is None or self._renewing.done():
                self._renewing = asyncio.create_task(self._renew(asked), name="issuer")
            return
        await self._renew(asked)

    async def _renew(self, asked: float) -> None:
        async with self._lock:
            now = time.monotonic()
            # Else somebody has asked just now.
            if self._fetched <= asked and now - self._tried >= RETRY_SECONDS:
                await self._fetch(now)
            if now - self._fetched > STALE_SECONDS:
                self._keys = None
                raise _unreachable()

    async def _fetch(self, now: float) -> None:
        self._tried = now
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                base = self._issuer.rstrip("/")
                metadata = await _get(client, f"{base}/.well-known/openid-configuration")
                if metadata.get("issuer") != self._issuer:
                    raise ValueError(f"it calls itself {metadata.get('issuer')!r}")
                keys = await _get(client, _secure(metadata.get("jwks_uri")))
            self._keys = KeySet.import_key_set(_known(keys))  # type: ignore[arg-type]
        except UNREACHABLE as error:
            logger.warning("The issuer %s can't be asked: %s", self._issuer, error or type(error).__name__)
            return
        self._metadata = metadata
        self._fetched = now


async def _get(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as response:
        if response.status_code != HTTPStatus.OK:
            raise ValueError(f"{url} answers with {response.status_code}")
        body = b""
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"{url} answers with more than {MAX_BYTES} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answers with something else")
    return document


def _secure(url: object) -> str:
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme != "https" and parts.hostname not in LOCAL:
        raise ValueError(f"its keys are at {url!r}, which isn't https")
    return str(url)


def _known(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out keys that sign nothing, or are of a kind that nobody knows yet."""
    keys = [key for key in document["keys"] if isinstance(key, dict) and key.get("use", "sig") == "sig"]
    return {"keys": [key for key in keys if key.get("kty") in {"RSA", "EC", "OKP"}]}


def _why(error: Exception) -> str:
    claim = getattr(error, "claim", None)
    if getattr(error, "error", None) == "expired_token":
        return "it has expired"
    if claim == "aud":
        return "it is for another service"
    if claim == "iss":
        return "it is of another issuer"
    return f"its claim {claim!r} doesn't hold" if claim else "its signature doesn't hold"


def _unreachable() -> RunError:
    detail = (
        "Who you are can't be checked now: the issuer of your token can't be reached. Try again in a moment."
    )
    return RunError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
