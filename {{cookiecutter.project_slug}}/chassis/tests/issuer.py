"""An issuer of tokens that does what a test wants: changes its keys, is down, lies, or has another time."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

AUDIENCE = "https://agents.example.com"
Keys = RSAKey | ECKey


class Issuer:
    """Its address, its keys, how often it was asked, and what it answers instead of what it should."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/realms/ours"
        self.keys: list[Keys] = []
        self.asked = 0
        # path -> status and body, in place of the real ones
        self.instead: dict[str, tuple[int, bytes]] = {}
        self.new_key()

    def new_key(self, kind: str = "RSA", *, with_id: bool = True) -> Keys:
        """Sign with a new key from now on; only that one is published."""
        parameters: Any = {"use": "sig", **({"kid": f"key-{time.monotonic_ns()}"} if with_id else {})}
        key: Keys = (
            RSAKey.generate_key(2048, parameters)
            if kind == "RSA"
            else ECKey.generate_key("P-256", parameters)
        )
        self.keys = [key]
        return key

    def token(
        self, subject: object = "ada", *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any
    ) -> str:
        """Make a token; a claim that is None is left out."""
        now = int(time.time())
        signer = key or self.keys[-1]
        kept = {"iss": self.address, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 300, **claims}
        known: dict[str, Any] = {"alg": "ES256" if isinstance(signer, ECKey) else "RS256", "typ": "at+jwt"}
        known |= {"kid": kid} if (kid := signer.as_dict().get("kid")) else {}
        known |= header or {}
        algorithms = [known["alg"]]
        return jwt.encode(
            {name: value for name, value in known.items() if value is not None},
            {name: value for name, value in kept.items() if value is not None},
            signer,
            algorithms,
        )

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return what is answered to a request."""
        self.asked += 1
        if path in self.instead:
            return self.instead[path]
        if path.endswith("/.well-known/openid-configuration"):
            documents: Any = {"issuer": self.address, "jwks_uri": f"{self.address}/keys"}
        elif path.endswith("/keys"):
            documents = KeySet(list(self.keys)).as_dict(private=False)
            if all("kid" not in key.dict_value for key in self.keys):
                documents = {"keys": [{n: v for n, v in k.items() if n != "kid"} for k in documents["keys"]]}
        else:
            return 404, b"{}"
        return 200, json.dumps(documents).encode()


class _Handler(BaseHTTPRequestHandler):
    issuer: ClassVar[Issuer]

    def do_GET(self) -> None:
        status, body = self.issuer.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving_issuer(port: int = 0) -> Iterator[Issuer]:
    """Serve an issuer, on a port if it is to come back at the same."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        handler.issuer = Issuer(server.server_port)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield handler.issuer  # type: ignore[attr-defined]
        server.shutdown()
