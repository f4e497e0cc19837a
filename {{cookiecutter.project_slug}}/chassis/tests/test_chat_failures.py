"""What the chat page does when something fails, is asked anew, or was another agent's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import URL

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
    opening,
    wait_in,
)
from chassis.tests.service import create_key, keys_command, service

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page

RUNS = re.compile("/v1/agents/[^/]+/runs$")
HTML = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
PHRASES = re.compile(
    r"^(Bad|Unauthorized|Forbidden|Not Found|Conflict|Request|Content|Unprocessable|Too Many|Internal|Service Un|Gateway)"
)
# (status, type, body, Retry-After, how the words begin, how they end)
ERRORS: tuple[tuple[int, str, Any, str, str, str], ...] = (
    (400, "problem", {"detail": "The model's provider refused the request."}, "", "The model's provider", "new conversation."),
    (403, "problem", {}, "", "This isn't allowed", "ask whoever runs the service."),
    (404, "problem", {"detail": "There is no conversation 'x'. Leave"}, "", "This conversation is gone.", "gone."),
    (404, "problem", {"detail": "There is no agent 'x'."}, "", "This agent is gone", "Choose another agent."),
    (404, "html", HTML, "", "The service doesn't know this", "Reload the page."),
    (409, "problem", {"detail": "Another run of the conversation is underway."}, "", "Another answer", "then try again."),
    (409, "problem", {"detail": "Another run changed the conversation meanwhile."}, "", "The conversation was changed", "ask again."),
    (413, "html", HTML, "", "The question is too long", "ask in parts."),
    (413, "problem", {"detail": "1000 bytes at most."}, "", "The question is too long", "ask in parts."),
    (422, "problem", {"errors": [{"at": "body/input", "detail": "String should have at most 100000 characters"}]}, "", "The question is too long", "ask in parts."),
    (422, "problem", {"errors": [{"at": "body/x", "detail": "Field required"}]}, "", "The service can't use this: Field required.", "try again."),
    (422, "problem", {"detail": "No answer was found within AGENT_REQUEST_LIMIT."}, "", "No answer was found", "try again."),
    (429, "problem", {"detail": "The key's limit is reached: 3 runs a minute."}, "7", "The key's limit is reached", "Try again in 7 seconds."),
    (429, "html", HTML, "Wed, 21 Oct 2015 07:28:00 GMT", "There were too many questions", "Try again."),
    (429, "html", HTML, "3600", "There were too many questions", "Try again in 60 minutes."),
    (429, "html", HTML, "", "There were too many questions", "Try again in a while."),
    (500, "problem", {"detail": "The service's log says why."}, "", "Something went wrong in the service.", "says why."),
    (502, "html", HTML, "", "The service can't be reached", "Try again in a while."),
    (502, "problem", {"detail": "The model's provider can't be reached."}, "", "The model's provider", "Try again in a while."),
    (503, "html", HTML, "2", "The service isn't ready", "Try again in 2 seconds."),
    (504, "html", HTML, "", "The answer took too long", "Try again in a while."),
    (507, "html", "", "", "Something went wrong in the service.", "says why."),
    (418, "json", [], "", "The service can't use this request.", "new conversation."),
)  # fmt: skip


@pytest.fixture(scope="module")
def clerk(browser: Browser, servers: list[Server]) -> Iterator[Page]:
    with opening(browser, servers[0].address) as page:
        # As long as there is some route, Playwright doesn't turn its interception off and on between two tests.
        page.route("**/nowhere", lambda route: route.abort())
        yield page


@pytest.mark.parametrize(("status", "kind", "body", "after", "begins", "ends"), ERRORS)
def test_errors_say_what_it_is_and_what_to_do(
    clerk: Page, status: int, kind: str, body: Any, after: str, begins: str, ends: str
) -> None:
    types = {"problem": "application/problem+json", "json": "application/json", "html": "text/html"}
    if isinstance(body, dict):
        body |= {"title": httpx.codes.get_reason_phrase(status), "status": status}
    headers = {"Content-Type": types[kind], **({"Retry-After": after} if after else {})}

    def refuse(route: Route) -> None:
        if kind == "html":
            route.fulfill(status=status, headers=headers, body=str(body))
        else:
            route.fulfill(status=status, headers=headers, json=body)

    clerk.get_by_role("button", name="New conversation").first.click()
    expect(clerk.locator(".error")).to_have_count(0)
    message_box(clerk).fill("")
    clerk.route(RUNS, refuse)
    ask(clerk, f"What about {status}?")
    error = clerk.locator(".error p")
    expect(error).to_have_text(re.compile(f"^{re.escape(begins)}"))
    expect(error).to_have_text(re.compile(f"{re.escape(ends)}$"))
    assert not PHRASES.search(error.inner_text())
    assert "nginx" not in error.inner_text()
    expect(clerk.get_by_role("status")).to_have_text(error.inner_text())
    expect(message_box(clerk)).to_have_value(f"What about {status}?")
    clerk.unroute(RUNS)
    button = clerk.locator(".error").get_by_role("button", name="Try again")
    if button.count():
        button.click()
        expect(answers(clerk)).to_have_text(f"Heard 1: What about {status}?")
        expect(clerk.locator(".question")).to_have_count(1)
        expect(message_box(clerk)).to_have_value("")


def test_a_lost_connection_is_shown_until_it_is_back(
    page: Page, servers: list[Server], provider: httpx.Client
) -> None:
    with Wire(servers[0].address) as wire:
        page.goto(wire.address)
        ask(page, HELD)
        expect(answers(page)).to_have_text("tick/1")
        page.route("**/events", lambda route: route.abort())
        wire.cut()
        release(provider)
        lost = page.locator("#lost")
        expect(lost).to_contain_text("The connection is lost.")
        # It tries again by itself too, but not within the next seconds.
        expect(lost).to_contain_text(re.compile(r"Trying again in [5-8] s\."), timeout=30_000)
        expect(page.get_by_role("status")).to_contain_text("lost")
        page.unroute("**/events")
        page.get_by_role("button", name="Try now").click()
        expect(lost).to_be_hidden()
        expect(answers(page)).to_have_text(TICKS)
        expect(page.locator(".error")).to_have_count(0)


@pytest.fixture(scope="module")
def pinging(database: URL, logs: Path, model: dict[str, str]) -> Iterator[Server]:
    with service(logs / "pinging", database, API_PING_SECONDS="0.5", **model) as server:
        yield server


def test_a_dead_connection_is_noticed_by_what_does_not_come(
    browser: Browser, pinging: Server, provider: httpx.Client
) -> None:
    with Wire(pinging.address) as wire, opening(browser, wire.address) as page:
        ask(page, HELD)
        expect(answers(page)).to_have_text("tick/1")
        with page.expect_request(re.compile("/events$")):
            wire.freeze()
        release(provider)
        expect(answers(page)).to_have_text(TICKS)
        # Silence alone is none: there are pings.
        ask(page, "sleep 4")
        page.wait_for_timeout(3500)
        expect(page.locator("#lost")).to_be_hidden()
        expect(answers(page).last).to_have_text("Heard 2: sleep 4")


def test_who_is_offline_goes_on_when_back(page: Page, provider: httpx.Client) -> None:
    ask(page, HELD)
    expect(answers(page)).to_have_text("tick/1")
    page.context.set_offline(True)
    expect(page.locator("#lost")).to_contain_text("You are offline")
    release(provider)
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_be_hidden()
    expect(answers(page)).to_have_text(TICKS)


@pytest.mark.parametrize("has_begun", [True, False])
def test_in_the_end_one_may_try_again(page: Page, provider: httpx.Client, has_begun: bool) -> None:
    nobody = re.compile("/(runs|events)$")
    if has_begun:
        ask(page, HELD)
        expect(answers(page)).to_have_text("tick/1")
        page.route(nobody, lambda route: route.abort())
        page.context.set_offline(True)
        expect(page.locator("#lost")).to_be_visible()
        release(provider)
        page.context.set_offline(False)
    else:
        page.route(nobody, lambda route: route.abort())
        ask(page, HELD)
    error, now = page.locator(".error"), page.get_by_role("button", name="Try now")
    for _ in range(6):
        expect(now.or_(error)).to_be_visible()
        if error.is_visible():
            break
        now.click()
        page.wait_for_timeout(200)
    expect(error).to_contain_text("The connection is lost")
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator(".question .said")).to_have_text(HELD)
    page.unroute(nobody)
    error.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_contain_text("tick/1")
    release(provider)
    expect(footers(page)).to_be_visible()
    expect(answers(page)).to_have_text(TICKS)
    expect(page.locator(".question")).to_have_count(1)
    expect(error).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("v1", None),
        ("v1", "<html>Sign in to this network.</html>"),
        ("v1/conversations", '{"conversations": ['),
    ],
    ids=["no answer", "somebody else's", "half of one"],
)
def test_a_page_without_a_service_says_so_and_tries_again(page: Page, path: str, answer: str | None) -> None:
    def serve(route: Route) -> None:
        route.abort() if answer is None else route.fulfill(body=answer)

    wanted = re.compile(f"/{path}[/?]")
    page.route(wanted, serve)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
    page.unroute(wanted)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("radio", name="Assistant")).to_be_checked()
    expect(page.get_by_role("alert")).to_be_hidden()


# The key


def test_a_key_that_is_not_given_can_be_given_later(
    browser: Browser, locked: httpx.Client, database: URL
) -> None:
    page = browser.new_page()
    page.goto(str(locked.base_url))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("An API key is needed.")
    # The question is asked once there is a key, and isn't lost without one.
    ask(page, "Hello")
    page.get_by_role("button", name="Cancel").click()
    expect(message_box(page)).to_have_value("Hello")
    page.get_by_role("button", name="Enter the key").click()
    page.get_by_role("textbox", name="Key").fill(create_key(database))
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="Assistant")).to_be_checked()
    expect(page.get_by_role("alert")).to_be_hidden()
    message_box(page).press("Enter")
    expect(answers(page)).to_have_text("Heard 1: Hello")
    page.close()


def test_a_key_that_ends_is_asked_for_again(browser: Browser, locked: httpx.Client, database: URL) -> None:
    key, other = create_key(database, "first"), create_key(database, "second")
    page = browser.new_page()
    page.goto(str(locked.base_url))
    field = page.get_by_role("textbox", name="Key")
    field.fill(key)
    page.keyboard.press("Enter")
    ask(page, "Hello")
    expect(footers(page)).to_be_visible()
    keys_command(database, "revoke", key.split("_")[1])
    page.wait_for_timeout(10_500)  # so long it is remembered
    ask(page, "Again")
    expect(page.locator("#ask-text")).to_contain_text("This API key isn't accepted")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".error")).to_contain_text("This API key isn't accepted")
    expect(message_box(page)).to_have_value("Again")
    page.locator(".error").get_by_role("button", name="Enter the key").click()
    field.fill("ak_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-text")).to_contain_text("This API key isn't accepted")
    field.fill(other)
    page.keyboard.press("Enter")
    # It is somebody else's conversation now.
    expect(page.locator(".error")).to_contain_text("This conversation is gone.")
    page.locator(".error").get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="Change API key").click()
    field.fill(create_key(database, "third"))
    page.keyboard.press("Enter")
    ask(page, "Third")
    expect(answers(page)).to_have_text("Heard 1: Third")
    expect(conversations(page)).to_have_count(1)
    page.get_by_role("button", name="Forget API key").click()
    expect(field).to_be_visible()
    wait_in(page, "sessionStorage.length === 0")
    expect(answers(page)).to_have_count(0)
    page.close()


LATE = """
const quick = fetch;
window.fetch = async (path, options) => {
  if (options.method === "GET") await new Promise((resolve) => setTimeout(resolve, 500));
  return quick(path, options);
};
"""


def test_a_question_waits_for_what_is_being_fetched(
    browser: Browser, locked: httpx.Client, database: URL
) -> None:
    """Else it would be wiped away by what comes in after it."""
    page = browser.new_page()
    page.add_init_script(LATE)
    page.goto(str(locked.base_url))
    page.get_by_role("textbox", name="Key").fill(create_key(database))
    page.keyboard.press("Enter")
    ask(page, "First")
    expect(answers(page)).to_have_text(["Heard 1: First"])
    page.get_by_role("button", name="New conversation").first.click()
    ask(page, "Other")
    expect(answers(page)).to_have_text(["Heard 1: Other"])
    conversations(page).nth(1).get_by_role("link").click()
    ask(page, "Second")
    expect(answers(page)).to_have_text(["Heard 1: First", "Heard 2: Second"])
    page.get_by_role("button", name="Change API key").click()
    page.get_by_role("textbox", name="Key").fill(create_key(database))
    page.keyboard.press("Enter")
    ask(page, "Third")
    expect(answers(page)).to_have_text(["Heard 1: Third"])
    expect(conversations(page)).to_have_count(1)
    page.close()


# Agents


def told(page: Page, agent: str, question: str) -> str:
    """Ask an agent over the API, and return the conversation."""
    origin = page.evaluate("location.origin")
    answer = httpx.post(f"{origin}/v1/agents/{agent}/runs", json={"input": question}, timeout=60)
    conversation: str = answer.raise_for_status().json()["conversation_id"]
    return conversation


def test_a_conversation_is_its_agents(page: Page) -> None:
    question = 'call final_result {"title": "a", "summary": "b"}'
    told(page, "tickets", question)
    told(page, "assistant", "Who are you?")
    page.reload()
    mine = conversations(page)
    expect(mine.nth(0).locator(".agent")).to_have_text("Assistant")
    expect(mine.nth(1).locator(".agent")).to_have_text("Tickets")
    expect(page.get_by_role("radio", name="Assistant")).to_be_checked()
    mine.nth(1).get_by_role("link").click()
    expect(page.get_by_role("radio", name="Tickets")).to_be_checked()
    expect(page.get_by_role("heading", name="Tickets", level=1)).to_be_visible()
    expect(page.locator(".record")).to_be_visible()
    with page.expect_request(re.compile("/v1/agents/tickets/runs$")):
        ask(page, question)
    expect(page.locator(".record")).to_have_count(2)
    expect(footers(page)).to_have_count(1)
    # Another agent means another conversation; what is typed stays.
    message_box(page).fill("Hello")
    page.get_by_role("radio", name="Assistant").check()
    expect(page.locator(".question")).to_have_count(0)
    expect(message_box(page)).to_have_value("Hello")
    # Unless one says otherwise.
    page.get_by_role("button", name="Go on in").click()
    expect(page.locator(".record")).to_have_count(2)
    expect(page.locator("#switch")).to_contain_text(
        "Tickets answered here so far. From now on Assistant does."
    )
    message_box(page).press("Enter")
    expect(answers(page)).to_have_text("Heard 3: Hello")
    expect(page.locator("#switch")).to_be_hidden()
    expect(page.locator("#conversations li:has([aria-current]) .agent")).to_have_text("Assistant")
    page.go_back()
    page.go_back()
    page.reload()
    expect(page.get_by_role("radio", name="Assistant")).to_be_checked()


def test_a_conversation_of_an_agent_that_is_gone_can_be_read_and_go_on(page: Page) -> None:
    question = 'call final_result {"title": "a", "summary": "b"}'
    conversation = told(page, "tickets", question)

    def without_tickets(route: Route) -> None:
        agents = [agent for agent in route.fetch().json()["agents"] if agent["id"] != "tickets"]
        route.fulfill(json={"agents": agents})

    page.route("**/v1/agents", without_tickets)
    page.goto(f"{page.evaluate('location.origin')}/#conversation={conversation}")
    page.reload()
    expect(page.locator(".record")).to_be_visible()
    expect(page.locator("#switch")).to_contain_text("“tickets” answered here. That agent is gone")
    expect(page.locator("#conversations li:has([aria-current]) .agent")).to_have_text("tickets")
    ask(page, "Hello")
    expect(page.get_by_label("Go on with")).to_be_focused()
    expect(message_box(page)).to_have_value("Hello")
    page.get_by_label("Go on with").select_option("Assistant")
    message_box(page).press("Enter")
    expect(answers(page)).to_have_text("Heard 2: Hello")
    expect(page.locator("#switch")).to_be_hidden()
    assert conversation in page.url


# Asked anew


def test_a_question_can_be_edited(page: Page) -> None:
    for words in ("one", "two", "three"):
        ask(page, words)
        expect(answers(page).last).to_contain_text(words)
        expect(page.get_by_role("button", name="Answer again")).to_have_count(1)
    second = page.locator(".question").nth(1)
    second.get_by_role("button", name="Edit").click()
    box = page.get_by_role("textbox", name="Question")
    expect(box).to_have_value("two")
    expect(box).to_be_focused()
    box.fill("nothing")
    page.keyboard.press("Escape")
    expect(second.locator(".said")).to_have_text("two")
    expect(second.get_by_role("button", name="Edit")).to_be_focused()
    page.keyboard.press("Enter")
    box.fill("zwei")
    page.keyboard.press("Enter")
    said = page.locator(".question .said")
    for _ in range(2):
        expect(said).to_have_text(["one", "zwei"])
        expect(answers(page)).to_have_text(["Heard 1: one", "Heard 2: zwei"])
        page.reload()
    # The first, and straight after an edit.
    page.locator(".question").first.get_by_role("button", name="Edit").click()
    box.fill("eins")
    page.get_by_role("button", name="Save").click()
    expect(answers(page)).to_have_text(["Heard 1: eins"])
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    ask(page, "more")
    expect(answers(page)).to_have_text(["Heard 1: eins", "Heard 2: more"])


def test_an_answer_can_be_had_again(page: Page) -> None:
    ask(page, "first")
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    ask(page, "call current_time {}")
    again = page.get_by_role("button", name="Answer again")
    expect(page.locator("details.tool")).to_have_count(1)
    expect(again).to_have_count(1)
    before = answers(page).last.inner_text()
    page.wait_for_timeout(1100)
    again.click()
    expect(answers(page).last).to_contain_text("The tool said")
    expect(answers(page).last).not_to_have_text(before)
    expect(page.locator(".question")).to_have_count(2)
    expect(message_box(page)).to_be_focused()
    expect(again).to_have_count(1)
    after = answers(page).last.inner_text()
    page.reload()
    expect(answers(page).last).to_have_text(after)
    expect(page.locator(".question")).to_have_count(2)


def test_an_edit_that_fails_or_is_stopped(page: Page) -> None:
    for words in ("one", "two"):
        ask(page, words)
        expect(answers(page).last).to_contain_text(words)
        expect(page.get_by_role("button", name="Answer again")).to_have_count(1)
    page.locator(".question").first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Question").fill("fail rate")
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_contain_text("allows no more requests")
    # What comes next comes after what is there.
    ask(page, "three")
    expect(page.locator(".question .said")).to_have_text(["one", "two", "three"])
    expect(answers(page).last).to_have_text("Heard 3: three")
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    page.locator(".question").nth(1).get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Question").fill("slow 300 0.1 tick")
    page.keyboard.press("Enter")
    expect(answers(page).last).to_contain_text("tick/3")
    # In the middle of it the same is shown after a reload.
    page.reload()
    expect(page.locator(".question .said")).to_have_text(["one", "slow 300 0.1 tick"])
    expect(answers(page).last).to_contain_text("tick/5")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    expect(page.locator(".question .said")).to_have_text(["one", "slow 300 0.1 tick"])
