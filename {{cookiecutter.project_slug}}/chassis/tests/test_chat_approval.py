"""How people decide on calls of tools on the chat page."""

import json
import re
from pathlib import Path

import httpx
import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import Browser, Locator, Page, expect

from chassis.testing.service import Server
from chassis.tests import chat_page
from chassis.tests.chat_page import answers, ask, opening
from chassis.tests.test_approval import ledger, order, paid

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page
__all__ = ["browser", "ledger", "page", "playwright"]


def card(page: Page) -> Locator:
    return page.get_by_role("group", name="Allow pay?")


def press(page: Page, name: str) -> None:
    card(page).get_by_role("button", name=name).click()


def ask_clerk(page: Page, words: str) -> None:
    page.get_by_role("radio", name="Clerk").check()
    ask(page, words)


def test_approved_on_another_replica_after_a_reload(
    browser: Browser, page: Page, servers: list[Server], ledger: Path
) -> None:
    ask_clerk(page, order(ledger))
    expect(card(page)).to_contain_text("amount")
    expect(card(page)).to_contain_text(str(ledger))
    page.reload()
    expect(card(page)).to_contain_text("amount")
    expect(page.locator(".tool")).to_have_count(0)
    place = page.url.partition("#")[2]
    with opening(browser, f"{servers[1].address}/#{place}") as there:
        press(there, "Approve")
        expect(answers(there)).to_have_text(["The tool said: Paid 5."])
        expect(card(there)).to_have_count(0)
        expect(there.locator(".tool .state")).to_have_text("done")
        assert paid(ledger) == [5]
        there.reload()
        expect(answers(there)).to_have_text(["The tool said: Paid 5."])
    # Whoever still has it open is told.
    press(page, "Deny")
    expect(page.locator(".wrong").last).to_contain_text("decided already, perhaps in another tab")
    expect(card(page).get_by_role("button", name="Approve")).to_be_hidden()
    assert paid(ledger) == [5]


def test_with_other_arguments(page: Page, ledger: Path) -> None:
    ask_clerk(page, order(ledger))
    card(page).locator("summary").click()
    box = card(page).get_by_role("textbox", name="Arguments of pay")
    box.fill("no JSON")
    press(page, "Approve")
    expect(card(page)).to_contain_text("This isn't a JSON object.")
    box.fill(json.dumps({"amount": "much", "ledger": str(ledger)}))
    press(page, "Approve")
    # What was typed is still there.
    expect(page.locator(".approvals > .wrong")).to_contain_text("don't fit the tool 'pay': amount:")
    expect(box).to_have_value(re.compile("much"))
    box.fill(json.dumps({"amount": 7, "ledger": str(ledger)}))
    press(page, "Approve")
    expect(answers(page)).to_have_text(["The tool said: Paid 7."])
    assert paid(ledger) == [7]


def test_denied_with_a_reason(page: Page, ledger: Path) -> None:
    ask_clerk(page, order(ledger))
    card(page).get_by_role("textbox", name="Why pay isn't approved").fill("Too dear.")
    press(page, "Deny")
    expect(answers(page)).to_have_text(["The tool said: Too dear."])
    assert paid(ledger) == []


def test_two_at_once(page: Page, ledger: Path) -> None:
    ask_clerk(page, order(ledger, verb="twice"))
    expect(card(page)).to_have_count(2)
    card(page).first.get_by_role("button", name="Deny").click()
    expect(card(page).first).to_contain_text("denied")
    assert paid(ledger) == []
    card(page).last.get_by_role("button", name="Approve").click()
    expect(answers(page)).to_have_count(1)
    expect(page.locator(".tool .state")).to_have_text(["done", "done"])
    assert paid(ledger) == [5]


def test_a_new_question_goes_on_without(page: Page, servers: list[Server], ledger: Path) -> None:
    ask_clerk(page, order(ledger))
    expect(card(page)).to_be_visible()
    ask(page, "Never mind")
    expect(answers(page)).to_have_text(["Heard 2: Never mind"])
    expect(card(page).get_by_role("button", name="Approve")).to_be_hidden()
    page.reload()
    expect(answers(page)).to_have_text(["Heard 2: Never mind"])
    expect(card(page)).to_have_count(0)
    conversation = page.url.partition("conversation=")[2]
    found = httpx.get(f"{servers[0].address}/v1/conversations/{conversation}").json()
    assert "waiting_run_id" not in found
    assert paid(ledger) == []
