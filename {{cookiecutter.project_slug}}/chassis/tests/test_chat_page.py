"""The chat page in a real Chromium, in front of the real service; only the model is a stand-in."""

import json
import re
from pathlib import Path

import httpx
import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import Browser, Page, ViewportSize, expect
from sqlalchemy import URL

from chassis.chat import routes as chat
from chassis.http.settings import ApiSettings
from chassis.testing.client import release
from chassis.testing.service import Server
from chassis.tests import chat_page
from chassis.tests.chat_page import (
    HELD,
    TICKS,
    Wire,
    answers,
    ask,
    conversations,
    footers,
    message_box,
    wait_in,
)
from chassis.tests.service import create_key

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page

PHONE: ViewportSize = {"width": 360, "height": 740}
HOSTILE = (
    '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> <b>bold</b> '
    "[link](javascript:window.hacked=1) ![image](https://example.com/x.png)"
)

# What has the focus, and how one sees it.
FOCUS = """(() => {
    let here = document.activeElement;
    const name = here.getAttribute("aria-label") ?? here.closest("label")?.textContent ?? here.textContent;
    return [name.trim(), getComputedStyle(here).outlineStyle];
})()"""


def test_a_person_sees_the_answer_stream_and_goes_on_after_a_reload(
    page: Page, provider: httpx.Client
) -> None:
    ask(page, HELD)
    expect(answers(page)).to_have_text("tick/1")
    release(provider)
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
    expect(page.locator("#conversations [aria-current]")).to_have_text(HELD)


def test_an_answer_goes_on_after_a_reload_in_the_middle(page: Page, provider: httpx.Client) -> None:
    ask(page, HELD)
    expect(answers(page)).to_have_text("tick/1")
    page.reload()
    expect(answers(page)).to_have_text("tick/1")
    release(provider)
    expect(answers(page)).to_contain_text("tick/30")
    expect(page.locator(".question .said")).to_have_text(HELD)
    expect(answers(page)).to_have_text(TICKS)


def test_an_answer_goes_on_after_the_connection_was_lost(
    page: Page, servers: list[Server], provider: httpx.Client
) -> None:
    with Wire(servers[0].address) as wire:
        page.goto(wire.address)
        ask(page, HELD)
        expect(answers(page)).to_have_text("tick/1")
        with page.expect_request(re.compile("/events$")) as resumed:
            wire.cut()
        assert int(resumed.value.headers["last-event-id"]) > 1
        release(provider)
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
    page.get_by_role("radio", name="Tickets").check()
    expect(page.get_by_role("heading", name="Tickets", level=1)).to_be_visible()
    report = {"title": "<i>Printer</i>", "summary": "It smokes."}
    ask(page, f"call final_result {json.dumps(report)}")
    for _ in range(2):
        expect(page.get_by_role("row", name="title")).to_contain_text("<i>Printer</i>")
        expect(page.get_by_role("row", name="summary")).to_contain_text("It smokes.")
        expect(page.locator("details.tool")).to_have_count(0)
        page.reload()


def test_sources_are_listed_as_text(page: Page) -> None:
    source = {"title": "<b>Title</b>", "text": HOSTILE, "score": 0.5, "source": "javascript:window.hacked=1"}
    page.evaluate(
        """async (sources) => {
            const { footer, sourcesOf } = await import("/chat/cards.js");
            const result = { name: "search_documents", content: JSON.stringify(sources) };
            document.getElementById("messages").append(footer(sourcesOf(result), ""));
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


def test_stop_stops(page: Page) -> None:
    ask(page, "slow 300 0.1 tick")
    expect(answers(page)).to_contain_text("tick/3")
    with page.expect_response(re.compile("/cancel$")) as cancelled:
        page.get_by_role("button", name="Stop").click()
    run = cancelled.value.url.removesuffix("/cancel")
    expect(footers(page)).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    ask(page, "Hello")
    # What was stopped is shown, so it is kept.
    expect(answers(page).last).to_have_text("Heard 2: Hello")
    assert httpx.get(run).json()["status"] == "cancelled"


def test_failures_say_what_to_do_and_give_the_question_back(page: Page) -> None:
    ask(page, "fail rate")
    expect(page.locator(".error")).to_contain_text("Try again in 5 minutes.")
    expect(page.get_by_role("status")).to_contain_text("Try again")
    expect(message_box(page)).to_have_value("fail rate")
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
    assert page.locator("main img, main script, main a").count() == 0
    assert page.evaluate("window.hacked") is None


def test_conversations_can_be_renamed_and_deleted(page: Page) -> None:
    ask(page, "Name me")
    expect(footers(page)).to_be_visible()
    mine = conversations(page).filter(has=page.locator("[aria-current]"))
    mine.hover()
    mine.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("<b>Renamed</b>")
    page.keyboard.press("Enter")
    expect(mine.get_by_role("link")).to_have_text("<b>Renamed</b>")
    expect(mine.get_by_title("Rename", exact=True)).to_be_focused()
    page.reload()
    expect(mine.get_by_role("link")).to_have_text("<b>Renamed</b>")
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


def test_more_conversations_come_on_demand(page: Page, servers: list[Server]) -> None:
    for number in range(31):
        answer = httpx.post(
            f"{servers[0].address}/v1/agents/assistant/runs", json={"input": f"Page {number}"}
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
    page.locator("details.tool summary").focus()
    page.keyboard.press("Space")
    expect(page.locator("details.tool")).to_have_attribute("open", "")
    while not message_box(page).evaluate("box => box === document.activeElement"):
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
    widths = "[document.documentElement, document.getElementById('view')]"
    assert page.evaluate(f"{widths}.every((box) => box.scrollWidth <= {PHONE['width']})")


def test_it_is_dark_where_people_like_it_dark(page: Page) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page.emulate_media(color_scheme="light")
    wait_in(page, f"Math.min(...{brightness}) > 200")
    page.emulate_media(color_scheme="dark")
    wait_in(page, f"Math.max(...{brightness}) < 60")


def test_the_key_is_asked_for_and_kept_in_the_tab_only(
    browser: Browser, locked: httpx.Client, database: URL, logs: Path
) -> None:
    key = create_key(database)
    page = browser.new_page()
    page.goto(str(locked.base_url))
    field = page.get_by_role("textbox", name="Key")
    field.fill("ak_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-text")).to_contain_text("This API key isn't accepted")
    assert field.get_attribute("type") == "password"
    field.fill(key)
    page.keyboard.press("Enter")
    ask(page, "Hello")
    expect(answers(page)).to_have_text("Heard 1: Hello")
    page.reload()
    expect(answers(page)).to_have_text("Heard 1: Hello")
    assert key not in page.url
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert key not in (logs / "locked").read_text(encoding="utf-8")
    page.close()


def test_the_page_is_off_in_production_unless_switched_on(prd: httpx.Client) -> None:
    assert prd.get("/").status_code == 404
    assert prd.get("/chat/app.js").status_code == 404
    database = {"DATABASE_URL": "postgresql://u:p@h/d"}
    settings = ApiSettings.from_env({"RUNTIME_ENV": "prd", **database})
    assert chat.enabled(settings, {"CHAT_PAGE": "True"})
    assert not chat.enabled(settings, {})


def test_the_files_are_kept_by_browsers_as_long_as_they_are_good(dev: httpx.Client) -> None:
    answer = dev.get("/")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = dev.get("/", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    policy = answer.headers["Content-Security-Policy"]
    assert policy == again.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    libraries = [file.name for file in Path(chat.__file__).parent.glob("*-*.js")]
    assert len(libraries) == 3
    assert all("immutable" in dev.get(f"/chat/{name}").headers["Cache-Control"] for name in libraries)
    assert dev.get("/chat/app.js").headers["Cache-Control"] == "no-cache"
    for missing in ("README.md", "marked-LICENSE.txt", "nothing.js", "..%2Fmain.py"):
        assert dev.get(f"/chat/{missing}").status_code == 404
