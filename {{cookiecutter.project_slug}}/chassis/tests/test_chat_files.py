"""Files on the chat page, in a real Chromium: chosen, dropped, pasted, taken back, sent, and shown again."""

import base64
import json
import re
from pathlib import Path

import httpx
import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import FilePayload, Locator, Page, expect

from chassis.tests import chat_page
from chassis.tests.chat_page import answers, ask, conversations, message_box
from chassis.tests.files import data_url, pdf, png

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page

# As the browser makes them when a file is dropped on the page, or pasted.
TRANSFER = """([kind, target, name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
}"""


def give(page: Page, kind: str, target: str, name: str, media_type: str, data: bytes) -> None:
    page.evaluate(TRANSFER, [kind, target, name, media_type, base64.b64encode(data).decode()])


def tray(page: Page) -> Locator:
    return page.locator("#files .file:not([aria-busy])")


def shown(page: Page) -> Locator:
    return page.locator(".question .file")


def choose(page: Page, *files: tuple[str, str, bytes]) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach files").click()
    given: list[FilePayload] = [
        {"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files
    ]
    chooser.value.set_files(given)


def test_a_picture_is_sent_and_shown_after_a_reload(
    page: Page, provider: httpx.Client, tmp_path: Path
) -> None:
    picture = png(50, 64)
    choose(page, ("My cat.png", "image/png", picture), ("a.pdf", "application/pdf", pdf("x")))
    expect(tray(page)).to_have_count(2)
    expect(tray(page).first.locator("img")).to_be_visible()
    ask(page, "What is it?")
    expect(answers(page)).to_contain_text("Heard 1: What is it?")
    expect(page.locator("#files")).to_be_hidden()
    sent = json.dumps(provider.get("/last").json()["messages"])
    assert data_url(picture) in sent
    assert data_url(pdf("x"), "application/pdf") in sent
    for _ in range(2):
        expect(shown(page)).to_have_count(2)
        expect(shown(page).first).to_contain_text("My cat.png")
        expect(shown(page).first.locator("img")).to_be_visible()
        assert (
            shown(page)
            .first.locator("img")
            .evaluate("image => image.decode().then(() => image.naturalWidth)")
            == 64
        )
        with page.expect_download() as saved:
            shown(page).last.get_by_role("button", name="Save “a.pdf”").click()
        assert saved.value.suggested_filename == "a.pdf"
        saved.value.save_as(tmp_path / "a.pdf")
        assert (tmp_path / "a.pdf").read_bytes() == pdf("x")
        page.reload()
    # In other words, with the same files.
    page.locator(".question").hover()
    page.get_by_role("button", name="Edit the question").click()
    page.get_by_role("textbox", name="Question").fill("And who?")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(answers(page)).to_contain_text("Heard 1: And who?")
    expect(shown(page)).to_have_count(2)
    assert data_url(picture) in json.dumps(provider.get("/last").json()["messages"])


def test_files_are_dropped_pasted_and_taken_back(page: Page, provider: httpx.Client) -> None:
    give(page, "dragover", "#view", "a.txt", "text/plain", b"a")
    expect(page.locator("body.dropping")).to_be_attached()
    with page.expect_response(re.compile("/v1/attachments")) as uploaded:
        give(page, "drop", "#view", "dropped.txt", "text/plain", b"by the mouse")
    expect(page.locator("body.dropping")).to_have_count(0)
    give(page, "paste", "#message", "pasted.png", "image/png", png(60))
    expect(tray(page)).to_have_count(2)
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as gone:
        tray(page).first.get_by_role("button", name="Remove “dropped.txt”").click()
    assert gone.value.url.endswith(uploaded.value.json()["id"])
    expect(message_box(page)).to_be_focused()
    # A picture may be all that is said.
    page.keyboard.press("Enter")
    expect(answers(page)).to_contain_text("Heard 1:")
    sent = json.dumps(provider.get("/last").json()["messages"])
    assert data_url(png(60)) in sent
    assert "by the mouse" not in sent
    expect(conversations(page).first).to_contain_text("[pasted.png]")
    page.reload()
    expect(shown(page)).to_have_count(1)
    expect(page.locator(".question .said")).to_be_hidden()


def test_what_is_not_taken_is_told_and_keeps_the_question(page: Page) -> None:
    choose(page, ("page.bin", "application/zip", b"PK\x03\x04"))
    bad = page.locator("#files .bad")
    expect(bad).to_contain_text("isn't taken")
    ask(page, "Read it")
    expect(page.get_by_role("status")).to_contain_text("Remove page.bin first")
    expect(message_box(page)).to_have_value("Read it")
    bad.get_by_role("button", name="Remove").click()
    choose(
        page, ("<img src=x onerror=window.hacked=1>.html", "text/html", b"<script>window.hacked=1</script>")
    )
    expect(tray(page)).to_contain_text("<img src=x onerror=window.hacked=1>.html")
    message_box(page).press("Enter")
    expect(answers(page)).to_contain_text("Heard 1: Read it")
    expect(shown(page)).to_contain_text("onerror")
    assert page.evaluate("window.hacked") is None


def test_a_failed_question_gives_its_files_back(page: Page, provider: httpx.Client) -> None:
    choose(page, ("kept.png", "image/png", png(70)))
    expect(tray(page)).to_have_count(1)
    ask(page, "fail rate")
    expect(page.locator(".error")).to_be_visible()
    expect(message_box(page)).to_have_value("fail rate")
    expect(tray(page)).to_have_text("kept.png")
    ask(page, "Hello")
    expect(answers(page).last).to_contain_text("Hello")
    assert data_url(png(70)) in json.dumps(provider.get("/last").json()["messages"])
