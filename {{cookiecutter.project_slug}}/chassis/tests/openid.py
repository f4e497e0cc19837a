"""A stand-in for an OpenID provider, as far as a page needs one: its person says yes with a click, or at once."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OKPKey

AUDIENCE, CLIENT = "agents", "chat-page"
FORM = "<form><h1>Provider</h1><a href='%s'>Yes</a></form>"


class RefusedError(Exception):
    """What the token endpoint answers with 400."""


class Provider:
    """What the provider knows, and how it behaves at the moment."""

    def __init__(self, address: str) -> None:
        self.issuer = address
        self.key = OKPKey.generate_key("Ed25519", {"kid": "one", "use": "sig"})
        self.metadata: dict[str, Any] = {
            "issuer": address,
            "jwks_uri": f"{address}/jwks",
            "authorization_endpoint": f"{address}/authorize",
            "token_endpoint": f"{address}/token",
            "end_session_endpoint": f"{address}/end",
        }
        # What was given out and can be used: once.
        self.codes: dict[str, Mapping[str, str]] = {}
        self.refresh_tokens: set[str] = set()
        self.behave()

    def behave(self, **how: Any) -> None:
        """Be as usual but for what is named, and forget what was seen."""
        self.person = "ada"
        self.audience = AUDIENCE
        self.lifetime = 600
        self.asks = False  # the person, with a form
        self.error: dict[str, str] = {}  # in place of a code
        self.state = ""  # in place of the page's
        self.nonce = ""  # likewise
        self.refuses: set[str] = set()  # kinds of grants
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        for name, value in how.items():
            assert hasattr(self, name)
            setattr(self, name, value)

    def grants(self) -> list[str]:
        """Return what was asked of the token endpoint."""
        return [form["grant_type"] for path, form in self.seen if path == "/token"]

    def way_back(self, query: Mapping[str, str]) -> str:
        """Return where the authorization endpoint sends the person."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["client_id"] == CLIENT
        assert urlsplit(query["redirect_uri"]).hostname == "127.0.0.1"
        code = token_urlsafe()
        self.codes[code] = query
        answer = self.error or {"code": code}
        return f"{query['redirect_uri']}?{urlencode(answer | {'state': self.state or query['state']})}"

    def exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return what the token endpoint gives."""
        kind = form["grant_type"]
        if kind in self.refuses or form["client_id"] != CLIENT:
            raise RefusedError
        claims = {}
        if kind == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            challenge = (
                urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
            )
            if (
                not asked
                or challenge != asked["code_challenge"]
                or form["redirect_uri"] != asked["redirect_uri"]
            ):
                raise RefusedError
            claims = {"nonce": self.nonce or asked["nonce"]}
        elif form["refresh_token"] not in self.refresh_tokens:
            raise RefusedError
        else:
            self.refresh_tokens.remove(form["refresh_token"])
        self.refresh_tokens.add(refresh_token := token_urlsafe())
        return {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "access_token": self.sign("at+jwt", self.audience),
            "id_token": self.sign("JWT", CLIENT, **claims),
            "refresh_token": refresh_token,
        }

    def sign(self, kind: str, audience: str, **claims: str) -> str:
        """Make a token for the person."""
        now = int(time.time())
        about = {
            "iss": self.issuer,
            "sub": self.person,
            "aud": audience,
            "iat": now,
            "exp": now + self.lifetime,
        }
        header = {"alg": "Ed25519", "kid": "one", "typ": kind}
        return jwt.encode(header, {**about, **claims}, self.key, algorithms=["Ed25519"])


class Handler(BaseHTTPRequestHandler):
    """Its endpoints."""

    provider: Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        self.provider.seen.append((parts.path, query))
        if parts.path == "/.well-known/openid-configuration":
            self._send(HTTPStatus.OK, self.provider.metadata)
        elif parts.path == "/jwks":
            self._send(HTTPStatus.OK, {"keys": [self.provider.key.as_dict(private=False)]})
        elif parts.path == "/authorize" and self.provider.asks:
            page = FORM % self.provider.way_back(query).replace("&", "&amp;")
            self._send(HTTPStatus.OK, page, "text/html; charset=utf-8")
        elif parts.path == "/authorize":
            self._redirect(self.provider.way_back(query))
        elif parts.path == "/end":
            self._redirect(query["post_logout_redirect_uri"])
        else:
            self._send(HTTPStatus.NOT_FOUND, {})

    def do_POST(self) -> None:
        assert self.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.provider.seen.append((self.path, form))
        try:
            self._send(HTTPStatus.OK, self.provider.exchange(form))
        except RefusedError:
            self._send(HTTPStatus.BAD_REQUEST, {"error": "invalid_grant"})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(
        self, status: HTTPStatus, content: str | Mapping[str, Any], kind: str = "application/json"
    ) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, url: str) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", url)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def providing() -> Iterator[Provider]:
    """Run a provider."""
    handler = type("ItsHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_port}")
        handler.provider = provider  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        yield provider
        server.shutdown()
