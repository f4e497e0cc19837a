"""Thumbs below the answers of the chat page, and words where one was no good."""

import pytest

pytest.importorskip("chassis.tests.chat_page")

import httpx
from playwright.sync_api import Locator, Page, expect

from chassis.testing.service import Server
from chassis.tests import chat_page
from chassis.tests.chat_page import answers, ask, conversations, footers, message_box

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page

WHY = "What was wrong with it?"


def thumb(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def expect_pressed(page: Page, name: str, *pressed: bool) -> None:
    expect(thumb(page, name)).to_have_count(len(pressed))
    for at, value in enumerate(pressed):
        expect(thumb(page, name).nth(at)).to_have_attribute("aria-pressed", str(value).lower())


def reload(page: Page, count: int) -> None:
    page.wait_for_load_state("networkidle")
    page.reload()
    expect(answers(page)).to_have_count(count)


def test_thumbs_and_words_are_kept(page: Page, servers: list[Server]) -> None:
    for number, words in enumerate(("say one", "say two"), 1):
        ask(page, words)
        expect(footers(page)).to_have_count(number)
    expect_pressed(page, "Good answer", False, False)
    thumb(page, "Good answer").first.click()
    expect_pressed(page, "Good answer", True, False)
    # By the keyboard alone.
    thumb(page, "Bad answer").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label(WHY)).to_be_focused()
    page.keyboard.type("Not two.\nThree!")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label(WHY)).to_have_count(0)
    expect(thumb(page, "Bad answer").nth(1)).to_be_focused()
    reload(page, 2)
    expect_pressed(page, "Good answer", True, False)
    expect_pressed(page, "Bad answer", False, True)
    conversation = page.url.rpartition("conversation=")[2]
    said = httpx.get(f"{servers[1].address}/v1/conversations/{conversation}/feedback").json()["feedback"]
    assert [(one["thumb"], one["words"]) for one in said] == [("down", "Not two.\nThree!"), ("up", None)]
    # A second press takes it back; the other thumb takes its place.
    thumb(page, "Good answer").first.click()
    expect_pressed(page, "Good answer", False, False)
    thumb(page, "Good answer").nth(1).click()
    expect_pressed(page, "Bad answer", False, False)
    expect(page.locator("#status")).to_have_text("Thank you.")
    reload(page, 2)
    expect_pressed(page, "Good answer", False, True)


def test_nobody_has_to_say_why(page: Page) -> None:
    ask(page, "say one")
    thumb(page, "Bad answer").click()
    expect(page.get_by_label(WHY)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label(WHY)).to_have_count(0)
    expect_pressed(page, "Bad answer", True)
    expect(message_box(page)).to_be_visible()
    assert conversations(page).count() >= 1


def test_what_cannot_be_saved_is_told(page: Page) -> None:
    ask(page, "say one")
    expect(footers(page)).to_have_count(1)
    page.wait_for_load_state("networkidle")
    page.route("**/feedback", lambda route: route.fulfill(status=503, content_type="application/problem+json", body='{"status": 503, "detail": "Away."}'))  # fmt: skip
    thumb(page, "Bad answer").click()
    expect(page.locator(".answer [role=alert]")).to_contain_text("Not saved.")
    expect_pressed(page, "Bad answer", False)
    expect(page.get_by_label(WHY)).to_have_count(0)
    page.unroute("**/feedback")
    thumb(page, "Bad answer").click()
    expect_pressed(page, "Bad answer", True)
    expect(page.locator(".answer [role=alert]")).to_have_count(0)
