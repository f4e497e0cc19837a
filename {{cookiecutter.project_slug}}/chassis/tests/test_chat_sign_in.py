"""Signing in on the chat page: the real page in front of the real service; the OpenID provider is a stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import URL

from chassis.chat.routes import secure
from chassis.testing.service import Server
from chassis.tests import chat_page
from chassis.tests.chat_page import PATIENCE, answers, ask, conversations, footers, message_box, wait_in
from chassis.tests.openid import AUDIENCE, CLIENT, Provider, providing
from chassis.tests.service import create_key, service

playwright, browser = chat_page.playwright, chat_page.browser

STORED = "JSON.parse(sessionStorage.getItem('session') ?? 'null')"
EXPIRE = """() => {
  const session = JSON.parse(sessionStorage.getItem("session"));
  sessionStorage.setItem("session", JSON.stringify({ ...session, %s }));
}"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    with providing() as issuer:
        yield issuer


@pytest.fixture(autouse=True)
def as_usual(issuer: Provider) -> None:
    issuer.behave()


def settings(issuer: Provider) -> dict[str, str]:
    return {
        "OIDC_ISSUER": issuer.issuer,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_PARAMETERS": "ui=plain&state=mine",
        "OIDC_LEEWAY_SECONDS": "0",
    }


@pytest.fixture(scope="module")
def guarded(database: URL, logs: Path, model: dict[str, str], issuer: Provider) -> Iterator[Server]:
    """The service as in production: whoever calls has signed in, or has a key."""
    with service(logs / "guarded", database, API_KEYS_REQUIRED="True", **settings(issuer), **model) as server:
        yield server


@pytest.fixture(scope="module")
def free(database: URL, logs: Path, model: dict[str, str], issuer: Provider) -> Iterator[Server]:
    """The service in development: one may sign in."""
    with service(logs / "free", database, **settings(issuer), **model) as server:
        yield server


@contextmanager
def visiting(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page. At the end it has kept to its rules, and its secrets to itself."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda line: complaints.append(line.text) if "Content Security" in line.text else None,
    )
    page.goto(address)
    try:
        yield page
        assert "?" not in page.url
        assert "token" not in page.url
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    finally:
        context.close()
    assert complaints == []


def in_dialog(page: Page) -> Locator:
    return page.get_by_role("dialog").get_by_role("button", name="Sign in")


def in_notice(page: Page) -> Locator:
    return page.locator("#notice").get_by_role("button", name="Sign in")


def sign_in(page: Page) -> None:
    in_dialog(page).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def dialog_text(page: Page) -> str:
    expect(page.get_by_role("dialog")).to_be_visible()
    text: str = page.locator("#ask-text").inner_text()
    return text


def test_who_signs_in_may_ask_until_signing_out(
    browser: Browser, guarded: Server, issuer: Provider, logs: Path
) -> None:
    with visiting(browser, guarded.address) as page:
        expect(in_dialog(page)).to_be_focused()
        issuer.asks = True
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Yes").click()
        expect(page.get_by_role("status")).to_have_text("You are signed in.")
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        expect(page.get_by_role("button", name="API key")).to_have_count(0)
        page.reload()
        expect(answers(page)).to_have_text("Heard 1: Hello")
        ask(page, "Again")
        expect(answers(page).last).to_have_text("Heard 2: Again")
        shown = next(query for path, query in issuer.seen if path == "/authorize")
        assert shown["scope"] == "openid"
        assert shown["ui"] == "plain"
        assert "code_verifier" not in shown
        assert issuer.grants() == ["authorization_code"]
        id_token = page.evaluate(STORED)["id"]
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert issuer.seen[-1] == (
            "/end",
            {
                "client_id": CLIENT,
                "post_logout_redirect_uri": f"{guarded.address}/",
                "id_token_hint": id_token,
            },
        )
        wait_in(page, "sessionStorage.length === 0")
        expect(answers(page)).to_have_count(0)
        page.go_back()
        expect(answers(page)).to_have_count(0)
    log = (logs / "guarded").read_text(encoding="utf-8")
    assert not any(secret in log for secret in (id_token, shown["state"], "code="))


def test_what_was_open_and_typed_is_there_again(browser: Browser, guarded: Server, issuer: Provider) -> None:
    with visiting(browser, guarded.address) as page:
        sign_in(page)
        ask(page, "Hello")
        expect(footers(page)).to_be_visible()
        address = page.url
        # Somewhere else, or in a tab that was closed meanwhile.
        page.evaluate("sessionStorage.clear()")
        page.reload()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("alert")).to_have_text("You aren't signed in.")
        message_box(page).fill("Half a que")
        in_notice(page).click()
        issuer.asks = True
        in_dialog(page).click()
        # Who turns back has lost nothing either.
        expect(page.get_by_role("heading", name="Provider")).to_be_visible()
        page.go_back()
        expect(message_box(page)).to_have_value("Half a que")
        in_dialog(page).click()
        page.get_by_role("link", name="Yes").click()
        expect(answers(page)).to_have_text("Heard 1: Hello")
        expect(message_box(page)).to_have_value("Half a que")
        assert page.url == address


# (how the provider behaves, what the page says)
FAILURES = (
    ({"error": {"error": "access_denied"}}, "the sign-in was cancelled or refused"),
    (
        {"error": {"error": "server_error", "error_description": "<b>Out</b> of order."}},
        "reports an error: <b>Out</b> of order. Sign in again",
    ),
    ({"state": "another"}, "wasn't begun in this tab. Sign in again."),
    ({"nonce": "another"}, "the sign-in service didn't complete it"),
    ({"refuses": {"authorization_code"}}, "the sign-in service didn't complete it"),
)


@pytest.mark.parametrize(("how", "words"), FAILURES)
def test_a_failed_sign_in_says_why_and_loses_nothing(
    browser: Browser, guarded: Server, issuer: Provider, how: dict[str, object], words: str
) -> None:
    hash_ = "#agent=assistant"
    with visiting(browser, f"{guarded.address}/{hash_}") as page:
        page.get_by_role("button", name="Cancel").click()
        message_box(page).fill("Half a que")
        in_notice(page).click()
        issuer.behave(**how)
        in_dialog(page).click()
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(message_box(page)).to_have_value("Half a que")
        assert page.url.endswith(hash_)
        wait_in(page, "sessionStorage.length === 0")
        assert len([path for path, _ in issuer.seen if path == "/authorize"]) == 1
        issuer.behave()
        in_notice(page).click()
        sign_in(page)
        message_box(page).press("Enter")
        expect(answers(page)).to_have_text("Heard 1: Half a que")


def test_a_token_is_renewed_before_it_ends(browser: Browser, guarded: Server, issuer: Provider) -> None:
    issuer.lifetime = 4
    with visiting(browser, guarded.address) as page:
        sign_in(page)
        first = page.evaluate(STORED)
        page.wait_for_timeout(4500)
        # Several calls, of which one renews it.
        page.reload()
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert page.evaluate(STORED)["access"] != first["access"]
        assert page.evaluate(STORED)["refresh"] != first["refresh"]
        assert set(issuer.grants()) == {"authorization_code", "refresh_token"}
        assert first["refresh"] not in issuer.refresh_tokens


def test_a_token_that_is_refused_early_is_renewed_once(
    browser: Browser, guarded: Server, issuer: Provider
) -> None:
    with visiting(browser, guarded.address) as page:
        sign_in(page)
        # As where a clock is wrong, or a key was withdrawn.
        page.evaluate(EXPIRE % 'access: session.access.slice(0, -8) + "AAAAAAAA"')
        page.reload()
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        assert issuer.grants() == ["authorization_code", "refresh_token"]


def test_who_must_sign_in_again_keeps_the_question(
    browser: Browser, guarded: Server, issuer: Provider
) -> None:
    with visiting(browser, guarded.address) as page:
        sign_in(page)
        ask(page, "First")
        expect(footers(page)).to_be_visible()
        expect(conversations(page)).not_to_have_count(0)
        issuer.refuses = {"refresh_token"}
        page.evaluate(EXPIRE % 'access: session.access.slice(0, -8) + "AAAAAAAA"')
        ask(page, "Second")
        assert dialog_text(page).startswith("Your sign-in has ended. Sign in again.")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".error")).to_contain_text("Your sign-in has ended.")
        expect(message_box(page)).to_have_value("Second")
        message_box(page).press("Enter")
        in_dialog(page).click()
        expect(answers(page)).to_have_text("Heard 1: First")
        expect(message_box(page)).to_have_value("Second")
        message_box(page).press("Enter")
        expect(answers(page).last).to_have_text("Heard 2: Second")
        # It was refused once only.
        assert issuer.grants() == ["authorization_code", "refresh_token", "authorization_code"]


def test_a_sign_in_that_does_not_count_is_no_loop(
    browser: Browser, guarded: Server, issuer: Provider, database: URL
) -> None:
    issuer.audience = "another"
    with visiting(browser, guarded.address) as page:
        in_dialog(page).click()
        expect(page.locator("#ask-text")).to_contain_text("The service doesn't accept your sign-in.")
        assert issuer.grants() == ["authorization_code", "refresh_token"]
        page.get_by_role("textbox", name="Or use an API key").fill(create_key(database))
        page.keyboard.press("Enter")
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        wait_in(page, f"{STORED} === null")


def test_an_api_key_still_does(browser: Browser, guarded: Server, issuer: Provider, database: URL) -> None:
    with visiting(browser, guarded.address) as page:
        field = page.get_by_role("textbox", name="Or use an API key")
        field.fill("ak_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#ask-text")).to_contain_text("This API key isn't accepted")
        field.fill(create_key(database))
        page.get_by_role("button", name="Use key").click()
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        expect(page.get_by_role("button", name="Forget API key")).to_be_visible()
        assert issuer.grants() == []
        # Who signs in is somebody else, and so is who takes a key after that.
        page.get_by_role("button", name="Change API key").click()
        sign_in(page)
        expect(page.get_by_role("button", name="API key")).to_have_count(0)
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(answers(page)).to_have_count(0)
        issuer.refuses = {"refresh_token"}
        page.evaluate(EXPIRE % 'access: "a.b.c"')
        page.reload()
        field.fill(create_key(database))
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Forget API key")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
        wait_in(page, f"{STORED} === null")


def test_where_no_key_is_needed_one_may_sign_in(browser: Browser, free: Server, issuer: Provider) -> None:
    with visiting(browser, free.address) as page:
        ask(page, "Nobody's")
        expect(footers(page)).to_be_visible()
        address = page.url
        issuer.error = {"error": "access_denied"}
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("You are not signed in")
        expect(answers(page)).to_have_text("Heard 1: Nobody's")
        assert page.url == address
        issuer.error = {}
        message_box(page).fill("Mine")
        in_notice(page).click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        # What nobody in particular has asked isn't theirs.
        expect(page.get_by_role("alert")).to_be_hidden()
        message_box(page).press("Enter")
        expect(answers(page)).to_have_text("Heard 1: Mine")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        wait_in(page, "sessionStorage.length === 0")


@pytest.fixture
def lost(database: URL, logs: Path, model: dict[str, str]) -> Iterator[Server]:
    """The service whose issuer can't be reached."""
    nowhere = {"OIDC_ISSUER": "http://127.0.0.1:1", "OIDC_AUDIENCE": AUDIENCE, "OIDC_CLIENT_ID": CLIENT}
    with service(logs / "lost", database, API_KEYS_REQUIRED="True", **nowhere, **model) as server:
        yield server


def test_without_its_provider_the_page_takes_keys(browser: Browser, lost: Server, database: URL) -> None:
    assert (
        httpx.get(f"{lost.address}/chat/sign-in", timeout=60).status_code == httpx.codes.SERVICE_UNAVAILABLE
    )
    with visiting(browser, lost.address) as page:
        assert "You can't sign in right now" in dialog_text(page)
        page.get_by_role("textbox", name="Key").fill(create_key(database))
        page.keyboard.press("Enter")
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        expect(footers(page)).to_be_visible()
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("You can't sign in right now")


def test_the_page_may_call_the_provider_and_nobody_else(guarded: Server, issuer: Provider) -> None:
    answer = httpx.get(guarded.address)
    policy = answer.headers["Content-Security-Policy"]
    assert f"connect-src 'self' {issuer.issuer};" in policy
    assert "unsafe" not in policy
    # A browser would keep an older policy with the file that is still good.
    conditional = {"If-None-Match": answer.headers["ETag"]}
    assert httpx.get(guarded.address, headers=conditional).headers["Content-Security-Policy"] == policy
    assert httpx.get(guarded.address, headers=conditional).status_code == httpx.codes.OK
    script = httpx.get(f"{guarded.address}/chat/signin.js")
    assert issuer.issuer not in script.headers["Content-Security-Policy"]


def test_without_an_issuer_there_is_nothing_to_sign_in_at(dev: httpx.Client) -> None:
    answer = dev.get("/chat/sign-in")
    assert answer.json() == {}
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("url", "is_offered"),
    [
        ("https://example.com/end", True),
        ("https://example.com:8443/end?a=b", True),
        ("http://localhost:1/end", True),
        ("http://[::1]:1/end", True),
        ("http://example.com/end", False),
        ("http://localhost.example.com/end", False),
        ("javascript://localhost/%0aalert(1)", False),
        ("https://a;script-src *", False),
        ("https://you@example.com/end", False),
        ("https://[::1", False),
        ("/end", False),
        (7, False),
        (None, False),
    ],
)
def test_only_secure_endpoints_are_offered(url: object, is_offered: bool) -> None:
    assert bool(secure({"end_session_endpoint": url}, "end_session_endpoint")) is is_offered
