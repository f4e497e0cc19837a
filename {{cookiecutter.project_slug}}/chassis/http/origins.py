"""Origins of websites and apps, as browsers send them: `https://app.example.com`, `capacitor://localhost`, `null`.

https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Origin
"""

import re
from collections.abc import Iterable

# The whole web, and a page without an origin of its own: a file, or a frame that any website can make.
ANY, NONE = "*", "null"
DEFAULT_PORTS = {"http": "80", "https": "443"}

ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<any>\*\.|\*)?(?P<host>[^\s/?#@:*\[\]]+|\[[0-9a-f:.]+\]|)(?::(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)
FORM = (
    "is no origin: write SCHEME://HOST or SCHEME://HOST:PORT without a path, such as https://app.example.com, "
    "https://*.example.com for all below it, capacitor://localhost, or null"
)


def read_origins(text: str) -> tuple[str, ...]:
    """Return the origins in a text, with commas or blanks between them, in the form that browsers send.

    Raises:
        ValueError: for what is no origin, and would never match one.
    """
    return tuple(_read(origin) for origin in re.split(r"[\s,]+", text) if origin)


def pattern(origins: Iterable[str]) -> str | None:
    """Return the expression for those that stand for many, or None if there are none."""
    many = [origin for origin in origins if "*" in origin and origin != ANY]
    # A subdomain, or any number of them; of a scheme that isn't the web's any host.
    return "|".join(re.escape(origin).replace(r"\*", r"[a-z0-9._-]+") for origin in many) or None


def _read(origin: str) -> str:
    if origin in {ANY, NONE}:
        return origin
    found = ORIGIN.fullmatch(origin)
    if found is None:
        raise ValueError(f"{origin!r} {FORM}")
    scheme, wildcard, port = found["scheme"].lower(), found["any"] or "", found["port"]
    try:
        host = found["host"].lower().encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{origin!r} {FORM}") from None
    web = scheme in DEFAULT_PORTS
    # `https://*` and `https://*.com` would be nearly everybody's.
    if (wildcard == "*" and (web or host)) or (wildcard != "*" and not host and scheme != "file"):
        raise ValueError(f"{origin!r} {FORM}")
    if (wildcard == "*." and "." not in host and host != "localhost") or (port and int(port) > 65535):
        raise ValueError(f"{origin!r} {FORM}")
    port = "" if port is None or int(port) == int(DEFAULT_PORTS.get(scheme, "0")) else f":{int(port)}"
    return f"{scheme}://{wildcard}{host}{port}"
