"""The chat page in a real Chromium, in front of the real service; only the model is a stand-in."""

import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

if find_spec("playwright") is None:
    assert "CI" not in os.environ, "The chat page is tested in a browser: uv sync --group browser"
    pytest.skip("For the chat page: uv sync --group browser", allow_module_level=True)

from playwright.sync_api import Browser, Locator, Page, Playwright, ViewportSize, expect, sync_playwright
from sqlalchemy import URL

from tests.conftest import Server, create_key, service, upgrade

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE: ViewportSize = {"width": 360, "height": 740}
SLOW, TICKS = "slow 30 0.1 tick", " ".join(f"tick/{n}" for n in range(1, 31))
HOSTILE = (
    '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> <b>bold</b> '
    "[link](javascript:window.hacked=1) ![image](https://example.com/x.png)"
)

# What has the focus, and how one sees it.
FOCUS = """(() => {
    let here = document.activeElement;
    while (here.shadowRoot) here = here.shadowRoot.activeElement;
    const name = here.getAttribute("aria-label") ?? here.closest("label")?.textContent ?? here.textContent;
    return [name.trim(), getComputedStyle(here).outlineStyle];
})()"""

expect.set_options(timeout=20_000)


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


@pytest.fixture(scope="module")
def chat_server(database: URL, logs: Path, model: dict[str, str]) -> Iterator[Server]:
    with service(logs / "chat", database, **model) as server:
        yield server


@pytest.fixture
def page(browser: Browser, chat_server: Server) -> Iterator[Page]:
    """The page, opened by a new person. At the end nothing has left the origin, nor broken its rules."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    opened, asked = {"data://"}, set[str]()
    complaints: list[str] = []
    page.on("framenavigated", lambda frame: opened.add(origin(frame.url)))
    page.on("request", lambda request: asked.add(origin(request.url)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.goto(chat_server.address)
    expect(message_box(page)).to_be_focused()
    yield page
    context.close()
    assert asked <= opened
    assert complaints == []


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def ask(page: Page, text: str) -> None:
    message_box(page).fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".ai-message.text-message")


def footers(page: Page) -> Locator:
    return page.locator(".footer")


def conversations(page: Page) -> Locator:
    return page.locator("#conversations li")


def test_a_person_sees_the_answer_stream_and_goes_on_after_a_reload(page: Page) -> None:
    ask(page, SLOW)
    expect(answers(page)).to_contain_text("tick/3")
    assert "tick/30" not in answers(page).inner_text()
    expect(answers(page)).to_contain_text("tick/30")
    expect(footers(page)).to_contain_text(re.compile(r"\d+ tokens · 1 request · openai:fake"))
    address = page.url
    page.reload()
    expect(answers(page)).to_contain_text("tick/30")
    expect(page.locator("#usage")).to_contain_text("1 request")
    ask(page, "Hello")
    expect(answers(page).last).to_have_text("Heard 2: Hello")
    expect(page.locator("#usage")).to_contain_text("2 requests")
    assert page.url == address
    expect(page.locator("#conversations [aria-current]")).to_have_text(SLOW)


def test_an_answer_goes_on_after_a_reload_in_the_middle(page: Page) -> None:
    ask(page, SLOW)
    expect(answers(page)).to_contain_text("tick/3")
    page.reload()
    expect(answers(page)).to_contain_text("tick/30")
    expect(page.locator(".user-message")).to_have_text(SLOW)
    expect(answers(page)).to_have_text(TICKS)


def test_an_answer_goes_on_after_the_connection_was_lost(page: Page, chat_server: Server) -> None:
    with Wire(chat_server.address) as wire:
        page.goto(wire.address)
        ask(page, SLOW)
        expect(answers(page)).to_contain_text("tick/3")
        with page.expect_request(re.compile("/events$")) as resumed:
            wire.cut()
        assert int(resumed.value.headers["last-event-id"]) > 3
        expect(answers(page)).to_have_text(TICKS)
        expect(footers(page)).to_be_visible()


def test_a_tool_call_and_its_result_are_shown(page: Page) -> None:
    ask(page, 'call current_time {"time_zone": "Europe/Berlin"}')
    card = page.locator("details.tool")
    expect(card.locator("summary")).to_contain_text("current_time")
    expect(answers(page)).to_contain_text("The tool said")
    expect(card.locator(".state")).to_have_text("done")
    card.locator("summary").click()
    expect(card.get_by_role("row", name="time zone")).to_contain_text("Europe/Berlin")
    expect(card.locator("pre")).to_contain_text(re.compile("CES?T"))
    page.reload()
    expect(card.locator("summary")).to_contain_text("current_time")


def test_a_typed_record_is_a_table(page: Page) -> None:
    page.get_by_role("radio", name="Incidents").check()
    expect(page.get_by_role("heading", name="Incidents", level=1)).to_be_visible()
    report = {"title": "<i>Printer</i>", "category": "other", "severity": "low", "summary": "It smokes."}
    ask(page, f"call final_result {json.dumps(report)}")
    for _ in range(2):
        expect(page.get_by_role("row", name="title")).to_contain_text("<i>Printer</i>")
        expect(page.get_by_role("row", name="severity")).to_contain_text("low")
        expect(page.locator("details.tool")).to_have_count(0)
        page.reload()


def test_sources_are_listed_as_text(page: Page) -> None:
    source = {"title": "<b>Title</b>", "text": HOSTILE, "score": 0.5, "source": "javascript:window.hacked=1"}
    page.evaluate(
        """async (sources) => {
            const { footer, sourcesOf } = await import("/chat/cards.js");
            const result = { name: "search_documents", content: JSON.stringify(sources) };
            const chat = document.querySelector("deep-chat");
            chat.addMessage({ html: footer(sourcesOf(result), "").outerHTML });
        }""",
        [source, source | {"source": "https://example.com/a"}],
    )
    listed = footers(page).get_by_role("listitem")
    expect(listed).to_have_count(2)
    listed.first.locator("summary").click()
    expect(listed.first).to_contain_text(HOSTILE)
    expect(listed.first).to_contain_text("javascript:window.hacked=1 · 0.50")
    assert listed.first.locator("a, img, b, script").count() == 0
    expect(listed.last.get_by_role("link", include_hidden=True)).to_have_attribute(
        "rel", "noopener noreferrer"
    )


def test_stop_stops(page: Page, chat_server: Server) -> None:
    ask(page, "slow 300 0.1 tick")
    expect(answers(page)).to_contain_text("tick/3")
    with page.expect_response(re.compile("/cancel$")) as cancelled:
        page.get_by_role("button", name="Stop").click()
    run = cancelled.value.url.removesuffix("/cancel")
    expect(footers(page)).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    ask(page, "Hello")
    expect(answers(page).last).to_have_text("Heard 1: Hello")
    assert httpx.get(run).json()["status"] == "cancelled"


def test_failures_say_what_to_do_and_give_the_question_back(page: Page) -> None:
    ask(page, "fail rate")
    expect(page.locator(".error-message-text")).to_contain_text("Try again")
    expect(page.get_by_role("status")).to_contain_text("Try again")
    expect(message_box(page)).to_have_text("fail rate")
    ask(page, "Hello")
    expect(answers(page).last).to_have_text("Heard 1: Hello")


def test_what_a_model_writes_is_text(page: Page) -> None:
    ask(page, HOSTILE)
    expect(answers(page)).to_contain_text('Heard 1: <img src=x onerror="window.hacked=1">')
    expect(footers(page)).to_be_visible()
    ask(page, 'call search_conversations {"words": "<img src=x onerror=window.hacked=1>"}')
    expect(footers(page)).to_have_count(2)
    page.reload()
    expect(footers(page)).to_have_count(0)
    expect(page.locator("details.tool")).to_have_count(1)
    page.locator("details.tool summary").click()
    expect(page.locator("details.tool")).to_contain_text("<img src=x onerror=window.hacked=1>")
    expect(page.locator("#conversations [aria-current]")).to_contain_text("<img")
    assert page.locator("deep-chat img, deep-chat script, deep-chat a").count() == 0
    assert page.evaluate("window.hacked") is None


def test_conversations_can_be_renamed_and_deleted(page: Page) -> None:
    ask(page, "Name me")
    expect(footers(page)).to_be_visible()
    mine = conversations(page).filter(has=page.locator("[aria-current]"))
    mine.hover()
    mine.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("<b>Renamed</b>")
    page.keyboard.press("Enter")
    expect(mine).to_have_text("<b>Renamed</b>")
    expect(mine.get_by_title("Rename", exact=True)).to_be_focused()
    page.reload()
    expect(mine).to_have_text("<b>Renamed</b>")
    address = page.url
    mine.hover()
    mine.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    expect(answers(page)).to_have_text("Heard 1: Name me")
    mine.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(conversations(page).filter(has_text="<b>Renamed</b>")).to_have_count(0)
    expect(answers(page)).to_have_count(0)
    page.goto(address)
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("This conversation is gone.")


def test_more_conversations_come_on_demand(page: Page, chat_server: Server) -> None:
    for number in range(31):
        answer = httpx.post(
            f"{chat_server.address}/v1/agents/assistant/runs", json={"input": f"Page {number}"}
        )
        assert answer.is_success
    page.reload()
    expect(conversations(page)).to_have_count(30)
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("link", name="Page 0", exact=True)).to_be_visible()


def test_the_keyboard_is_enough(page: Page) -> None:
    ask(page, "call current_time {}")
    expect(footers(page)).to_be_visible()
    page.reload()
    expect(message_box(page)).to_be_focused()
    expect(page.locator("#conversations [aria-current]")).to_be_visible()
    # From the message back to the top: all of it can be reached, and one sees where one is.
    reached: list[str] = []
    while "Skip to the message" not in reached and len(reached) < 200:
        page.keyboard.press("Shift+Tab")
        name, outline = page.evaluate(FOCUS)
        reached.append(name)
        assert outline == "solid", name
    assert {"Assistant", "New conversation", "call current_time {}"} <= set(reached)
    assert {"Rename “call current_time {}”", "Delete “call current_time {}”"} <= set(reached)
    page.keyboard.press("Enter")
    expect(message_box(page)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.locator("details.tool summary")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("details.tool")).to_have_attribute("open", "")
    page.keyboard.press("Tab")
    page.keyboard.type("slow 300 0.1 tick")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    page.keyboard.press("Space")
    expect(answers(page).last).to_contain_text("tick/2")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Space")
    expect(footers(page)).to_have_text("Stopped.")


def test_a_phone_has_all_of_it_in_a_drawer(page: Page) -> None:
    page.set_viewport_size(PHONE)
    ask(page, "call current_time {}")
    expect(footers(page)).to_be_visible()
    menu, drawer = page.get_by_role("button", name="Agents and conversations"), page.locator("#side")
    expect(drawer).to_be_hidden()
    menu.click()
    expect(drawer).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    menu.click()
    page.get_by_role("button", name="New conversation").click()
    expect(drawer).to_be_hidden()
    expect(answers(page)).to_have_count(0)
    menu.click()
    conversations(page).first.get_by_role("link").click()
    expect(drawer).to_be_hidden()
    page.locator("details.tool summary").click()
    ask(page, "x" * 500)
    expect(answers(page)).to_have_count(2)
    widths = "[document.documentElement, document.querySelector('deep-chat').shadowRoot.getElementById('messages')]"
    assert page.evaluate(f"{widths}.every((box) => box.scrollWidth <= {PHONE['width']})")


def test_it_is_dark_where_people_like_it_dark(page: Page) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page.emulate_media(color_scheme="light")
    assert min(page.evaluate(brightness)) > 200
    page.emulate_media(color_scheme="dark")
    assert max(page.evaluate(brightness)) < 60


def test_the_key_is_asked_for_and_kept_in_the_tab_only(
    browser: Browser, new_database: Callable[[], URL], logs: Path, model: dict[str, str]
) -> None:
    url = new_database()
    upgrade(url)
    key = create_key(url)
    with service(logs / "chat_prd", url, RUNTIME_ENV="prd", CHAT_PAGE="True", **model) as server:
        page = browser.new_page()
        page.goto(server.address)
        field = page.get_by_role("textbox", name="Key")
        field.fill("ak_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#ask-text")).to_contain_text("Unauthorized")
        assert field.get_attribute("type") == "password"
        field.fill(key)
        page.keyboard.press("Enter")
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Heard 1: Hello")
        page.reload()
        expect(answers(page)).to_have_text("Heard 1: Hello")
        assert key not in page.url
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert key not in (logs / "chat_prd").read_text(encoding="utf-8")
        page.close()


def test_the_page_is_off_in_production(prd: httpx.Client) -> None:
    assert prd.get("/").status_code == 404
    assert prd.get("/chat/app.js").status_code == 404


def test_the_files_are_kept_by_browsers_as_long_as_they_are_good(dev: httpx.Client) -> None:
    answer = dev.get("/")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = dev.get("/", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    policy = answer.headers["Content-Security-Policy"]
    assert policy == again.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    component = re.findall(r"chat/(deep-chat-[\d.]+\.js)", answer.text)
    assert "immutable" in dev.get(f"/chat/{component[0]}").headers["Cache-Control"]
    for missing in ("README.md", "deep-chat-LICENSE.txt", "nothing.js", "..%2Fmain.py"):
        assert dev.get(f"/chat/{missing}").status_code == 404


class Wire:
    """Another address of a service, whose connections can be cut."""

    def __init__(self, address: str) -> None:
        self._port = urlsplit(address).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):  # it has ended by itself
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

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
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
