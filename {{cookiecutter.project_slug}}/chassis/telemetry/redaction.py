"""What is taken out of traces with content: this service's own secrets, and what has the form of one.

It finds what it knows. Personal data, and secrets of a form of their own, need patterns of the team's, see
`create_app(redact=...)`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from opentelemetry.sdk.trace import Event, ReadableSpan, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.trace import Link, Status

REDACTED = "[REDACTED]"
# A shorter one can't be told from a word.
SHORTEST = 6

SECRET_NAME = re.compile(r"(?:KEY|PASS|PASSWORD|SECRET|TOKEN|HEADERS)$", re.IGNORECASE)
URL_PASSWORD = re.compile(r"://[^\s/:@]*:([^\s/@]+)@")

# In JSON a line break is `\n`, whose letter is none of a word. Inside of a word nothing begins: else a text made for
# that would be looked through again from each of its letters.
_START = r"(?:(?<![\w-])|(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4}))"
_PEM = r"PRIVATE KEY(?: BLOCK)?-----"
FORMS = (
    rf"-----BEGIN [A-Z ]*{_PEM}(?:[\w\s+/=:,]|-(?!-)|\\+[nr])*(?:-----END [A-Z ]*{_PEM})?",
    _START + "(?:" + "|".join((
        r"sk-(?=[\w-]*\d)[\w-]{12,}",  # OpenAI, Anthropic, Langfuse and others
        r"[rs]k_(?:live|test)_\w{8,}|whsec_[\w+/=-]{8,}",  # Stripe, Standard Webhooks
        r"A(?:KIA|SIA)[A-Z0-9]{16}",  # AWS
        r"AIza[\w-]{30,}|ya29\.[\w-]{16,}",  # Google
        r"gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}",
        r"xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}",  # Slack
        r"hf_\w{20,}|npm_\w{20,}|pypi-[\w-]{20,}|pylf_v\d_\w{10,}",
        r"ak_[0-9a-f]{12}_[0-9a-f]{64}",  # a caller's
        r"eyJ[\w-]{6,}(?:\.[\w-]*){2,4}",  # a JSON web token
    )) + ")",
)  # fmt: skip
# The same after something that stays, which is the first group: in an address, in a header, and by its name, which
# has quotes around its value or not. The quotes themselves may be in a text in quotes.
_URL = r"(://[^\s/:@\"'\\]*:)[^\s/@\"'\\]+(?=@)"
_BEARER = rf"({_START}bearer\s+)(?=[\w.~+/-]*\d)[\w.~+/-]{{8,}}=*"
_NAMES = (
    r"pass(?:word|wd|phrase)|secret|(?:api|access|private)[_-]?key|authorization"
    r"|(?:access|refresh|id|auth|session|bearer)[_-]?token"
)
_SCHEME = r"(?:basic|bearer)\s"
NAMED = (
    rf"(authorization[\"'\\]*\s*[:=]\s*[\"'\\]*{_SCHEME}+)[\w.~+/-]{{4,}}=*",
    rf"((?:{_NAMES})\\*[\"']?\s*[:=]\s*(?P<quote>\\*[\"']))(?!{_SCHEME})(?:(?!(?<!\\)(?P=quote))(?s:.))+(?=(?P=quote))",
    rf"((?:{_NAMES})\s*[:=]\s*)(?!{_SCHEME}|\[)[^\s\"'\\,;&{{}}()<>]{{4,}}",
)


def secrets_of(env: Mapping[str, str]) -> set[str]:
    """Return the values of the environment that are secret by their variables' names, and passwords of its URLs."""
    found = {unquote(password) for value in env.values() for password in URL_PASSWORD.findall(value)}
    for name, value in env.items():
        if not SECRET_NAME.search(name):
            continue
        if name.endswith("HEADERS"):  # NAME=VALUE,NAME=VALUE of OpenTelemetry, with %20 for a blank
            found |= {
                unquote_plus(pair.partition("=")[2]).strip().rpartition(" ")[2] for pair in value.split(",")
            }
        else:
            found.add(value.strip())
    return {secret for secret in found if len(secret) >= SHORTEST}


def redactor(env: Mapping[str, str], patterns: Iterable[str] = ()) -> Callable[[str], str]:
    """Return what takes secrets out of a text.

    Args:
        env: where the service's own secrets are.
        patterns: regular expressions of what is to be taken out besides.
    """
    own = sorted({form for secret in secrets_of(env) for form in _spellings(secret)}, key=len, reverse=True)
    # One after the other: each by itself is looked for much faster than all in one.
    whole = [re.compile(pattern) for pattern in ("|".join(map(re.escape, own)), *FORMS, *patterns) if pattern]
    after = [re.compile(pattern, re.IGNORECASE) for pattern in (_URL, _BEARER)]
    named = [re.compile(pattern, re.IGNORECASE) for pattern in NAMED]
    names = re.compile(_NAMES)

    def redact(text: str) -> str:
        for pattern in whole:
            text = pattern.sub(REDACTED, text)
        for pattern in (*after, *named) if names.search(text.lower()) else after:
            text = pattern.sub(rf"\1{REDACTED}", text)
        return text

    return redact


def _spellings(secret: str) -> Iterator[str]:
    """The secret as it is, in an address, in JSON, and in a JSON text of JSON."""
    yield from (secret, quote(secret), quote(secret, safe=""))
    for to_ascii in (True, False):
        inside = secret
        for _ in range(2):
            inside = json.dumps(inside, ensure_ascii=to_ascii)[1:-1]
            yield inside


class _Redacting(SynchronousMultiSpanProcessor):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._redact = redact

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(
            ReadableSpan(
                name=self._redact(span.name),
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes=self._clean(span.attributes),
                events=[
                    Event(self._redact(event.name), self._clean(event.attributes), event.timestamp)
                    for event in span.events
                ],
                links=[Link(link.context, self._clean(link.attributes)) for link in span.links],
                kind=span.kind,
                status=Status(span.status.status_code, self._clean(span.status.description)),
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        )

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, Mapping):
            return {name: self._clean(item) for name, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            return [self._clean(item) for item in value]
        return value


class RedactingTracerProvider(TracerProvider):
    """Hands spans to whatever sends them without the secrets in them."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Take what takes secrets out of a text."""
        # As FastAPI makes its own: it sends what is left when the service stops.
        super().__init__(shutdown_on_exit=False, active_span_processor=_Redacting(redact))
