"""People sign in on the page with a real OpenID provider. A workspace's Python runs this, in its chassis/tests.

PROVIDER_FOLDER names the folder with tests/support/openid_provider.mjs and the package that it imports.
"""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chassis.testing.service import running
from chassis.tests import chat_page
from chassis.tests.chat_page import answers, ask, footers, message_box
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from sqlalchemy import URL

playwright, browser = chat_page.playwright, chat_page.browser

FOLDER = Path(os.environ["PROVIDER_FOLDER"])
AUDIENCE = "https://agents.example.com"
LIFETIME = 6


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def provider(log: Path, page: str, wish: str) -> Iterator[str]:
    port = str(free_port())
    with log.open("w+", encoding="utf-8") as output:
        command = ["node", str(FOLDER / "openid_provider.mjs"), port, page, AUDIENCE, str(LIFETIME), wish]
        process = subprocess.Popen(command, cwd=FOLDER, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 30
            while not (found := re.search(r"^issuer (\S+)", log.read_text(), re.MULTILINE)):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield found[1]
        finally:
            process.terminate()
            process.wait(timeout=10)


def consent(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()


def log_in(page: Page, name: str) -> None:
    """Fill in the provider's forms, and come back."""
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("secret")
    page.get_by_role("button", name="Sign-in").click()
    consent(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.parametrize(
    ("wish", "parameters"),
    [("granted", "prompt=consent"), ("asked", f"prompt=consent&resource={AUDIENCE}")],
)
def test_sign_in(
    browser: Browser, database: URL, logs: Path, model: dict[str, str], wish: str, parameters: str
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = logs / f"openid-{wish}"
    with provider(log, f"{address}/", wish) as issuer:
        variables = {
            "DATABASE_URL": database.render_as_string(hide_password=False),
            "OIDC_ISSUER": issuer,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_CLIENT_ID": "chat-page",
            "OIDC_SCOPE": "openid offline_access",
            "OIDC_PARAMETERS": parameters,
            "OIDC_LEEWAY_SECONDS": "0",
            "API_KEYS_REQUIRED": "True",
            "CHAT_PAGE": "True",
        }
        with running(
            logs / f"service-{wish}", "chassis.tests.app:app", "--port", str(port), **variables, **model
        ):
            context = browser.new_context(viewport={"width": 1200, "height": 800})
            context.route(re.compile("fonts.googleapis"), lambda route: route.abort())
            page = context.new_page()
            page.set_default_timeout(chat_page.PATIENCE)
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))

            def note(line: ConsoleMessage) -> None:
                if "Content Security" in line.text:
                    complaints.append(f"{page.url} {line.text}")

            page.on("console", note)
            # A link that somebody sent, and what is typed before the dialog can be.
            page.goto(f"{address}/#agent=tickets")
            expect(page.get_by_role("dialog")).to_be_visible()
            page.get_by_role("button", name="Cancel").click()
            message_box(page).fill("Half a que")
            page.get_by_role("alert").locator("..").get_by_role("button", name="Sign in").click()
            page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
            log_in(page, f"ada-{wish}")
            assert page.url == f"{address}/#agent=tickets"
            expect(message_box(page)).to_have_value("Half a que")
            expect(page.get_by_role("radio", name="Tickets")).to_be_checked()
            page.get_by_role("radio", name="Assistant").check()
            ask(page, "Hello")
            expect(answers(page)).to_have_text("Heard 1: Hello")
            expect(footers(page)).to_be_visible()
            # The token ends, twice, and is renewed with a refresh token that is another each time.
            for n in (2, 3):
                page.wait_for_timeout(1000 * (LIFETIME + 1))
                ask(page, "Again")
                expect(answers(page).last).to_have_text(f"Heard {n}: Again")
                expect(page.get_by_role("dialog")).to_be_hidden()
            page.reload()
            expect(answers(page).last).to_have_text("Heard 3: Again")
            assert "grant.success refresh_token" in log.read_text()
            assert "grant.error" not in log.read_text(), log.read_text()
            assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("button", name="Yes, sign me out").click()
            expect(page.get_by_role("dialog")).to_be_visible()
            assert page.evaluate("sessionStorage.length") == 0
            # Signed out there too: it asks for the login anew, where the person gives up.
            page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
            expect(page.get_by_placeholder("Enter any login")).to_be_visible()
            page.get_by_role("link", name="Cancel").click()
            expect(page.get_by_role("alert")).to_contain_text(
                "You are not signed in: the sign-in was cancelled"
            )
            page.get_by_role("alert").locator("..").get_by_role("button", name="Sign in").click()
            page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
            log_in(page, f"bob-{wish}")
            # Bob has none of Ada's conversations.
            expect(page.locator("#none")).to_be_visible()
            # The provider takes the refresh token no more: what is asked isn't lost.
            page.evaluate(
                "sessionStorage.setItem('session', "
                "JSON.stringify({ ...JSON.parse(sessionStorage.getItem('session')), refresh: 'none' }))"
            )
            page.wait_for_timeout(1000 * (LIFETIME + 1))
            ask(page, "Not lost")
            expect(page.locator("#ask-text")).to_contain_text("Your sign-in has ended.")
            assert "grant.error refresh_token" in log.read_text()
            page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
            consent(page)
            expect(message_box(page)).to_have_value("Not lost")
            message_box(page).press("Enter")
            expect(answers(page)).to_have_text("Heard 1: Not lost")
            context.close()
    assert [line for line in complaints if line.startswith(address)] == []
