"""A real Chromium in front of the real service, for the tests of the chat page; only the model is a stand-in."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

if find_spec("playwright") is None:
    assert "CI" not in os.environ, "The chat page is tested in a browser: uv sync --group browser"
    pytest.skip("For the chat page: uv sync --group browser", allow_module_level=True)

from playwright.sync_api import Browser, Locator, Page, Playwright, expect, sync_playwright

from chassis.testing.service import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A question whose answer waits after the first tick until the provider is told to go on (`release`), and its answer.
HELD, TICKS = "hold 30 tick", " ".join(f"tick/{n}" for n in range(1, 31))
# Other tests may keep all cores busy for a while.
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)


# For this module only: while it lives, playwright keeps an event loop running in this thread.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert "CI" not in os.environ, "The chat page is tested in a browser: install chromium."
        pytest.skip("No Chromium or Chrome is installed.")
    # Its sandbox does not work for root, as whom containers run.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=path, args=options)
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, servers: list[Server]) -> Iterator[Page]:
    """The page, opened by a new person."""
    with opening(browser, servers[0].address) as page:
        yield page


@contextmanager
def opening(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """Open the page. At the end nothing has left the origin, nor broken its rules."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    opened, asked = {"data://", "blob://"}, set[str]()
    complaints: list[str] = []
    page.on("framenavigated", lambda frame: opened.add(origin(frame.url)))
    page.on("request", lambda request: asked.add(origin(request.url)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.goto(address)
    expect(page.locator("#agents input").first).to_be_attached()
    if not options.get("has_touch"):
        expect(message_box(page)).to_be_focused()
    try:
        yield page
    finally:
        context.close()
    assert asked <= opened, asked - opened
    assert not complaints, complaints


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def ask(page: Page, text: str) -> None:
    message_box(page).fill(text)
    page.keyboard.press("Enter")


def wait_in(page: Page, holds: str) -> None:
    """Wait until an expression holds in the page. Only a function may be asked again: the page's policy allows no `eval`."""
    page.wait_for_function(f"() => {holds}")


def answers(page: Page) -> Locator:
    return page.locator(".answer .text")


def footers(page: Page) -> Locator:
    return page.locator(".footer")


def conversations(page: Page) -> Locator:
    return page.locator("#conversations li")


class Wire:
    """Another address of a service, whose connections can be cut."""

    def __init__(self, address: str) -> None:
        self._port = urlsplit(address).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):  # it has ended by itself
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def freeze(self) -> None:
        """Let nothing more through on the connections there are, without a word to either side."""
        self._frozen.update(self._ends)

    def refuse(self) -> None:
        """Accept no more connections, and cut those there are."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if source not in self._frozen:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
