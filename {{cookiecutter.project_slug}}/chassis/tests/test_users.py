"""People who call: what counts as a token, keys that act for them, what is kept apart, and what each may use."""

import asyncio
import hmac
import json
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import URL, insert

from chassis.database.engine import sync_engine
from chassis.errors import RunError
from chassis.keys.limits import TODAY
from chassis.keys.tables import ApiKeyUsage
from chassis.testing.client import ask, check_problem
from chassis.testing.service import clean_env
from chassis.tests.issuer import AUDIENCE, Issuer, serving_issuer
from chassis.tests.service import create_key, id_of, keys_command, serving, users_command
from chassis.users import issuer as issuers
from chassis.users.settings import UserSettings
from chassis.users.tokens import InvalidTokenError

HOUR = 3600
STRANGER = RSAKey.generate_key(2048, {"kid": "stranger"})


def signed_with(secret: bytes, token: str) -> str:
    """The token with a signature that anybody can make, as the secret is published."""
    header = urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
    signed = f"{header}.{token.split('.')[1]}"
    signature = hmac.new(secret, signed.encode(), "sha256").digest()
    return f"{signed}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


# What is wrong with a token, and what is said of it. Functions are of the issuer.
WRONG: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "expired": (lambda issuer: issuer.token(exp=int(time.time()) - 120), "it has expired"),
    "of another issuer": (lambda issuer: issuer.token(iss="https://example.com"), "it is of another issuer"),
    "for another service": (
        lambda issuer: issuer.token(aud=["https://example.com"]),
        "it is for another service",
    ),
    "not yet valid": (lambda issuer: issuer.token(nbf=int(time.time()) + HOUR), "'nbf'"),
    "from the future": (lambda issuer: issuer.token(iat=int(time.time()) + HOUR), "'iat'"),
    "without an end": (lambda issuer: issuer.token(exp=None), "'exp'"),
    "with an end that is a word": (lambda issuer: issuer.token(exp="later"), "'exp'"),
    "for nobody": (lambda issuer: issuer.token(aud=None), "for another service"),
    "of nobody": (lambda issuer: issuer.token(None), "'sub'"),
    "of an empty subject": (lambda issuer: issuer.token(""), "'sub'"),
    "of a number": (lambda issuer: issuer.token(5), "'sub'"),
    "of a long subject": (lambda issuer: issuer.token("a" * 256), "subject"),
    "of a subject with a NUL": (lambda issuer: issuer.token("a\0b"), "subject"),
    "of a stranger": (lambda issuer: issuer.token(key=STRANGER), "signature"),
    "of a stranger who says to be ours": (
        lambda issuer: issuer.token(key=STRANGER, header={"kid": issuer.keys[0].kid}),
        "signature",
    ),
    "signed with the public key": (
        lambda issuer: signed_with(issuer.keys[0].as_pem(private=False), issuer.token()),
        "signed in a way",
    ),
    "an ID token's logout": (lambda issuer: issuer.token(header={"typ": "logout+jwt"}), "another type"),
    "not signed": (
        lambda issuer: "eyJhbGciOiJub25lIn0." + issuer.token().split(".")[1] + ".AAAA",
        "signed in a way",
    ),
    "cut": (lambda issuer: issuer.token()[:-20], "signature"),
    "changed": (
        lambda issuer: issuer.token("eve").rpartition(".")[0] + "." + issuer.token().rpartition(".")[2],
        "signature",
    ),
    "no JSON": (lambda issuer: "AAAA.BBBB.CCCC", "no JSON web token"),
}


def bearer(key: str, user: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **({"X-User-ID": user} if user else {})}


def person(issuer: Issuer, subject: str) -> dict[str, str]:
    return bearer(issuer.token(subject))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_token_that_does_not_count(locked: httpx.Client, issuer: Issuer, wrong: str) -> None:
    make, words = WRONG[wrong]
    token = make(issuer)
    refused = locked.get("/v1/agents", headers=bearer(token))
    detail = check_problem(refused, 401, words)["detail"]
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert "ada" not in detail
    assert token not in detail


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": ["https://example.com", AUDIENCE]},
        {"exp": -30},  # clocks differ
        {"nbf": 30},
        {"iat": None},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "header", [{}, {"typ": None}, {"typ": "JWT"}, {"typ": "application/at+jwt"}], ids=str
)
def test_a_token_that_counts(
    locked: httpx.Client, issuer: Issuer, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    # Numbers are seconds from now, when the test runs.
    claims = {
        name: time.time() + value if isinstance(value, int) else value for name, value in claims.items()
    }
    assert locked.get("/v1/agents", headers=bearer(issuer.token(header=header, **claims))).status_code == 200


def test_without_an_issuer_a_token_is_no_key(prd: httpx.Client, issuer: Issuer) -> None:
    refused = prd.get("/v1/agents", headers=bearer(issuer.token()))
    assert "token" not in check_problem(refused, 401)["detail"]


# The issuer


@pytest.fixture
def flighty() -> Iterator[Issuer]:
    """An issuer of a test's own."""
    with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
def checking(flighty: Issuer, monkeypatch: pytest.MonkeyPatch) -> issuers.Issuer:
    """What checks its tokens, which asks it again after a wrong one at once."""
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0)
    return checker(flighty)


def checker(issuer: Issuer) -> issuers.Issuer:
    return issuers.Issuer(UserSettings.from_env({"OIDC_ISSUER": issuer.address, "OIDC_AUDIENCE": AUDIENCE}))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["RSA", "EC"])
@pytest.mark.parametrize("with_id", [True, False])
async def test_new_keys_of_the_issuer_count_at_once(
    flighty: Issuer, checking: issuers.Issuer, kind: str, with_id: bool
) -> None:
    flighty.new_key(kind, with_id=with_id)
    old = flighty.token()
    assert await checking.subject(old) == "ada"
    asked = flighty.asked
    for _ in range(3):
        assert await checking.subject(flighty.token()) == "ada"
    assert flighty.asked == asked
    flighty.new_key(kind, with_id=with_id)
    assert await checking.subject(flighty.token("bob")) == "bob"
    with pytest.raises(InvalidTokenError):
        await checking.subject(old)


@pytest.mark.anyio
async def test_wrong_tokens_do_not_make_the_issuer_busy(flighty: Issuer) -> None:
    checking = checker(flighty)
    for _ in range(20):
        with pytest.raises(InvalidTokenError):
            await checking.subject(flighty.token(key=STRANGER))
    assert flighty.asked == 2


@pytest.mark.anyio
async def test_an_issuer_that_is_away(
    flighty: Issuer, checking: issuers.Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = flighty.token()
    monkeypatch.setattr(flighty, "answer", lambda _: (503, b"down"))
    with pytest.raises(RunError, match="can't be reached") as refused:
        await checking.subject(good)
    assert refused.value.status == 503
    monkeypatch.undo()
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0)
    assert await checking.subject(good) == "ada"
    # Whom it has vouched for, it still does; only for a while.
    monkeypatch.setattr(flighty, "answer", lambda _: (503, b"down"))
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0)
    assert await checking.subject(good) == "ada"
    monkeypatch.setattr(issuers, "STALE_SECONDS", 0)
    with pytest.raises(RunError, match="can't be reached"):
        await checking.subject(good)


@pytest.mark.anyio
async def test_nobody_waits_for_a_slow_issuer(
    flighty: Issuer, checking: issuers.Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, answer, goes_on = flighty.token(), flighty.answer, threading.Event()
    assert await checking.subject(good) == "ada"

    def slow(path: str) -> tuple[int, bytes]:
        goes_on.wait(20)
        return answer(path)

    monkeypatch.setattr(flighty, "answer", slow)
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0)
    asked = flighty.asked
    for _ in range(3):
        assert await asyncio.wait_for(checking.subject(good), 2) == "ada"
    assert flighty.asked == asked
    goes_on.set()
    for _ in range(200):
        if flighty.asked > asked:
            break
        await asyncio.sleep(0.05)
    assert flighty.asked > asked


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/realms/ours/.well-known/openid-configuration", b"<html>"),
        ("/realms/ours/.well-known/openid-configuration", b"[]"),
        (
            "/realms/ours/.well-known/openid-configuration",
            b'{"issuer": "https://evil.example.com", "jwks_uri": "x"}',
        ),
        (
            "/realms/ours/.well-known/openid-configuration",
            b'{"issuer": "ISSUER", "jwks_uri": "http://example.com/keys"}',
        ),
        ("/realms/ours/keys", b"{}"),
        ("/realms/ours/keys", b'{"keys": []}'),
        ("/realms/ours/keys", b'{"keys": 5}'),
        ("/realms/ours/keys", b'{"keys": [5]}'),
        ("/realms/ours/keys", b'{"keys": [{"kty": "RSA", "n": "!", "e": "!"}]}'),
        ("/realms/ours/keys", b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
        ("/realms/ours/keys", b" " * 1_100_000),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_an_issuer_that_talks_nonsense(
    flighty: Issuer, checking: issuers.Issuer, path: str, body: bytes
) -> None:
    flighty.instead[path] = (200, body.replace(b"ISSUER", flighty.address.encode()))
    with pytest.raises(RunError, match="can't be reached"):
        await checking.subject(flighty.token())
    flighty.instead.clear()
    assert await checking.subject(flighty.token()) == "ada"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OIDC_ISSUER": "http://id.example.com"}, "OIDC_ISSUER: must begin with https"),
        ({"OIDC_ISSUER": "id.example.com"}, "OIDC_ISSUER: must be the issuer's address"),
        ({"OIDC_ISSUER": "https://id.example.com?x=1"}, "OIDC_ISSUER: must be the issuer's address"),
        ({"OIDC_ISSUER": "https://id.example.com"}, "OIDC_ISSUER and OIDC_AUDIENCE go together"),
        ({"OIDC_AUDIENCE": "x"}, "OIDC_ISSUER and OIDC_AUDIENCE go together"),
        ({"OIDC_CLIENT_ID": "x"}, "OIDC_CLIENT_ID needs OIDC_ISSUER"),
        ({"OIDC_PARAMETERS": "x"}, "OIDC_PARAMETERS: must be NAME=VALUE"),
        ({"USER_TOKENS_PER_DAY": "0"}, "USER_TOKENS_PER_DAY: "),
        ({"USER_COST_PER_DAY": "much"}, "USER_COST_PER_DAY: "),
    ],
    ids=str,
)
def test_wrong_settings_stop_the_start(env: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        UserSettings.from_env(env)


def test_the_environment_may_be_written_in_any_case(database: URL, logs: Path) -> None:
    with serving(logs / "upper", database, RUNTIME_ENV="DEV") as client:
        assert client.get("/health").status_code == 200


# Whose it is


def test_a_key_for_people_names_them(locked: httpx.Client, issuer: Issuer, database: URL) -> None:
    """The person is the same whoever brings the question: the key of a machine, or a token."""
    key = create_key(database, "gateway", "--acts-for-users")
    asked = ask(locked, "hello", headers=bearer(key, "zoe|1")).json()
    for headers in (bearer(key, "zoe|1"), person(issuer, "zoe|1")):
        assert locked.get(f"/v1/runs/{asked['run_id']}", headers=headers).status_code == 200
        listed = locked.get("/v1/conversations", headers=headers).json()["conversations"]
        assert [one["id"] for one in listed] == [asked["conversation_id"]]
        assert locked.get("/v1/usage", headers=headers).json()["days"][0]["runs"] == 1
    for headers in (bearer(key), bearer(key, "zoe|2"), person(issuer, "zoe|2")):
        assert locked.get(f"/v1/runs/{asked['run_id']}", headers=headers).status_code == 404
    # What it did for people counts for the key too.
    assert locked.get("/v1/usage", headers=bearer(key)).json()["days"][0]["runs"] == 1


def test_who_may_not_name_a_person(locked: httpx.Client, issuer: Issuer, database: URL) -> None:
    for headers in (bearer(create_key(database), "ada"), bearer(issuer.token("bob"), "ada")):
        check_problem(locked.get("/v1/agents", headers=headers), 403, "--acts-for-users")
    key = create_key(database, "gateway", "--acts-for-users")
    for wrong in (b"a b", b"a" * 256, "ä".encode()):
        shown = httpx.Headers([(b"Authorization", f"Bearer {key}".encode()), (b"X-User-ID", wrong)])
        check_problem(locked.get("/v1/agents", headers=shown), 422, "X-User-ID")


def test_a_key_for_people_is_limited_to_its_agents(locked: httpx.Client, database: URL) -> None:
    key = create_key(database, "gateway", "--acts-for-users", "--agents", "tickets")
    check_problem(ask(locked, "hello", headers=bearer(key, "ada")), 404, "There are: tickets.")


def test_nobody_is_blocked_but_who_is(locked: httpx.Client, issuer: Issuer, database: URL) -> None:
    users = partial(users_command, database)
    assert "blocked" in users("block", "mallory")
    key = create_key(database, "gateway", "--acts-for-users")
    for headers in (person(issuer, "mallory"), bearer(key, "mallory")):
        check_problem(locked.get("/v1/conversations", headers=headers), 403, "may not use the service")
    assert locked.get("/v1/conversations", headers=person(issuer, "mallory2")).status_code == 200
    assert any(
        line.startswith("mallory ") and line.endswith("blocked") for line in users("list").splitlines()
    )
    users("unblock", "mallory")
    deadline = time.monotonic() + 20
    while (status := locked.get("/v1/agents", headers=person(issuer, "mallory")).status_code) == 403:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert status == 200


# Limits


@pytest.fixture(scope="module")
def frugal(database: URL, logs: Path, model: dict[str, str], issuer: Issuer) -> Iterator[httpx.Client]:
    """The service where nobody may do much."""
    limits = {"USER_REQUESTS_PER_MINUTE": "1000", "USER_TOKENS_PER_DAY": "5", "USER_COST_PER_DAY": "0.5"}
    variables = {"OIDC_ISSUER": issuer.address, "OIDC_AUDIENCE": AUDIENCE, **limits, **model}
    with serving(logs / "frugal", database, API_KEYS_REQUIRED="True", **variables) as client:
        yield client


def spend(database: URL, owner: str, **used: Any) -> None:
    engine = sync_engine(database)
    with engine.begin() as connection:
        connection.execute(insert(ApiKeyUsage).values(owner=owner, day=TODAY, **used))
    engine.dispose()


def test_what_a_person_may_use(frugal: httpx.Client, issuer: Issuer, database: URL) -> None:
    for subject, used, words in (
        (
            "thrifty",
            {"input_tokens": 3, "output_tokens": 2},
            "The user's limit is reached: 5 tokens a day (UTC).",
        ),
        ("dear", {"cost": Decimal("0.5")}, "The user's limit is reached: 0.5 USD a day (UTC)."),
    ):
        spend(database, f"user:{subject}", **used)
        refused = ask(frugal, "hello", headers=person(issuer, subject))
        assert check_problem(refused, 429, words)["code"] == "insufficient_quota"
        assert 1 <= int(refused.headers["Retry-After"]) <= 24 * HOUR
    assert ask(frugal, "hello", headers=person(issuer, "modest")).status_code == 200
    # Who has limits of their own has those; a key that acts for people is bound by both.
    users_command(database, "limit", "rich", "--tokens-per-day", "1000", "--cost-per-day", "2.50")
    spend(database, "user:rich", input_tokens=10)
    assert ask(frugal, "hello", headers=person(issuer, "rich")).status_code == 200
    key = create_key(database, "dear", "--acts-for-users", "--cost-per-day", "1")
    assert ask(frugal, "hello", headers=bearer(key, "rich")).status_code == 200
    check_problem(ask(frugal, "hello", headers=bearer(key, "thrifty")), 429, "The user's limit")
    other = create_key(database, "spent", "--acts-for-users", "--cost-per-day", "1")
    spend(database, id_of(other), cost=Decimal(1))
    check_problem(
        ask(frugal, "hello", headers=bearer(other, "rich")), 429, "The key's limit is reached: 1 USD a day"
    )
    listed = users_command(database, "list")
    assert any(
        line.startswith("rich ") and "1000 tokens/day, 2.50 USD/day" in line and "2 runs" in line
        for line in listed.splitlines()
    )
    assert "1 USD/day" in keys_command(database, "list")


def test_runs_a_minute_of_a_person(database: URL, logs: Path, model: dict[str, str], issuer: Issuer) -> None:
    variables = {
        "OIDC_ISSUER": issuer.address,
        "OIDC_AUDIENCE": AUDIENCE,
        "USER_REQUESTS_PER_MINUTE": "3",
        **model,
    }
    while time.time() % 60 > 30:  # all of it within one minute
        time.sleep(1)
    with serving(logs / "slow", database, API_KEYS_REQUIRED="True", **variables) as client:
        statuses = [ask(client, "hello", headers=person(issuer, "hasty")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert ask(client, "hello", headers=person(issuer, "patient")).status_code == 200


# What is off costs nothing


def test_without_an_issuer_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, chassis.tests.app; print([m for m in ('joserfc', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
