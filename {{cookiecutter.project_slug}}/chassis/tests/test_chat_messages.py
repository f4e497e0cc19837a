"""How the chat page shows what is said: Markdown, code, formulas, records, and the box to write in."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("chassis.tests.chat_page")

from playwright.sync_api import Browser, Page, expect
from sqlalchemy import URL

from chassis.testing import service
from chassis.testing.service import Server
from chassis.tests import chat_page
from chassis.tests.chat_page import answers, ask, footers, message_box, opening, wait_in
from chassis.tests.test_conversations import ASKED

playwright, browser, page = chat_page.playwright, chat_page.browser, chat_page.page

NOTHING = "\N{EN DASH}"
PHONE = {"width": 375, "height": 700}
WIDE = "| Setting | What it is for |\n|---|---|\n| %s | as an example of what people write |\n"
CODE = 'def greet(name: str) -> str:  # a comment\n    return "Hello, " + name + "%s"'
# (what the model says, what is there, how often, with which text)
SHOWN = (
    ("| a | b |\n|---|--:|\n| 1 | 2 |", "table td", 2, "1"),
    ("| a | b |\n|---|--:|\n| 1 | 2 |", "td.right", 1, "2"),
    ("| a<br>b |\n|---|\n| 1 |", "th br", 1, ""),
    ("- [x] one\n- [ ] two", "li.task input[disabled]", 2, ""),
    ("- [x] one\n- [ ] two", "input[checked]", 1, ""),
    ("1. [ ] a\n\n   more\n2. b", "ol > li.task input", 1, ""),
    ("See https://example.com/a_b_c?d=1.", 'a[href="https://example.com/a_b_c?d=1"]', 1, "https://example.com/a_b_c?d=1"),
    ("See www.example.com or a@example.com", 'a[target="_blank"][rel="noopener noreferrer"]', 2, "www.example.com"),
    ("[x](//example.com) [y](mailto:a@b.c) [z](#here)", "a", 3, "x"),
    ("[x](javascript:alert(1)) [y](data:text/html,z) [z](relative) ![i](https://example.com/i.png)", "a, img", 0, ""),
    ("~~gone~~ and `code *not* bold`", "del", 1, "gone"),
    ("`code *not* bold &amp;`", "code", 1, "code *not* bold &amp;"),
    ("&lt;b&gt; &amp; \\*stars\\*", "p", 1, "<b> & *stars*"),
    ("> quoted\n\n---\n\n# Head", "blockquote p, hr, h3", 3, "quoted"),
    ("[a][1]\n\n[1]: https://example.com/", 'a[href="https://example.com/"]', 1, "a"),
    ("<details open style='color:red'>x</details>", "details, [style]", 0, ""),
    ("Let $a^2 + b_1$ be, or \\(x\\), or $5$.", "math", 3, ""),
    ("$$\\frac{1}{2}$$", "div.math math mfrac", 1, ""),
    ("\\[\nx = y\n\\]\n\nand\n\n$$\ne^x\n$$", "div.math math", 2, ""),
    ("- in a list: $x$\n\n  $$y$$", "li math", 2, ""),
    ("**bold $x_1$** and | $y$ |", "math", 2, ""),
    ("It costs $5 and $10, or US$5 to US$7, or $5-$10.", "math, .math", 0, ""),
    ("It costs 5$-10$, or **$5** to **$10**, $5/$10.", "math, .math", 0, ""),
    ("The first $5 of 10$ and \\[1\\] or \\(see below, please\\).", "math, .math", 0, ""),
    ("`$x$` and `\\(y\\)`\n\n```sh\necho $HOME and $PATH $$\n```", "math, .math", 0, ""),
    ("$\\nonsense{$ and $\\frac{1}$", "math", 0, ""),
    ("\\$x\\$ is no formula", "p", 1, "$x$ is no formula"),
    ("```python title=x\nprint(1)\n```", "figcaption > span", 1, "python"),
    ("```python\nprint(1)  # hi\n```", "pre .hljs-comment", 1, "# hi"),
    ("```none-such\n<b>x</b>\n```", "pre code", 1, "<b>x</b>"),
    ("```html\n<script>window.hacked=1</script>\n```", "pre .hljs-tag", 2, "<script>"),
)  # fmt: skip


@pytest.fixture(scope="module")
def reader(browser: Browser, servers: list[Server]) -> Iterator[Page]:
    with opening(browser, servers[0].address) as page:
        yield page


@pytest.mark.parametrize(("said", "selector", "count", "text"), SHOWN)
def test_markdown_is_shown(reader: Page, said: str, selector: str, count: int, text: str) -> None:
    reader.get_by_role("button", name="New conversation").click()
    expect(answers(reader)).to_have_count(0)
    ask(reader, f"say {said}")
    expect(footers(reader)).to_be_visible()
    found = answers(reader).locator(selector)
    expect(found).to_have_count(count)
    if count and text:
        expect(found.first).to_have_text(text)
    assert reader.evaluate("window.hacked") is None
    # After a reload it is the same.
    reader.wait_for_load_state("networkidle")  # colours and formulas may have come after the text
    html = answers(reader).evaluate("text => text.innerHTML")
    reader.reload()
    expect(answers(reader)).to_have_count(1)
    expect(answers(reader).locator(selector)).to_have_count(count)
    expect(answers(reader)).to_have_js_property("innerHTML", html)


@pytest.mark.parametrize(
    ("said", "box"),
    [
        (WIDE % ("incomprehensibilities_" * 5), ".table"),
        (f"```python\n{CODE % ('long ' * 30)}\n```", "pre"),
        ("$$" + " + ".join(f"x_{{{n}}}" for n in range(60)) + "$$", "div.math"),
    ],
    ids=["table", "code", "formula"],
)
def test_what_is_wide_moves_within_itself(
    browser: Browser, servers: list[Server], said: str, box: str
) -> None:
    with opening(browser, servers[0].address, viewport=PHONE) as page:
        ask(page, f"say {said}\n\nAnd then {'incomprehensibilities' * 10}.")
        expect(footers(page)).to_be_visible()
        found = answers(page).locator(box)
        found.locator("math").or_(found).first.wait_for()
        # Colours and formulas come after the text.
        within = f"document.querySelector('.answer .text {box}')"
        wait_in(page, f"{within}.scrollWidth > {within}.clientWidth")
        for wide in ("document.documentElement", "document.getElementById('view')"):
            wait_in(page, f"{wide}.scrollWidth <= {PHONE['width']}")
        # With the keyboard too.
        found.focus()
        page.keyboard.press("ArrowRight")
        expect(found).not_to_have_js_property("scrollLeft", 0)


def test_words_in_a_table_stay_whole(browser: Browser, servers: list[Server]) -> None:
    with opening(browser, servers[0].address, viewport=PHONE) as page:
        cells = [
            "Configuration",
            "internationalization",
            "a few plain words that may well go on in a new line",
        ]
        ask(page, f"say | {' | '.join(cells)} |\n{'|---' * 3}|\n| {' | '.join(cells)} |")
        expect(footers(page)).to_be_visible()
        lines = """table => [...table.querySelectorAll("th, td")].flatMap((cell) => {
            const text = cell.firstChild, words = [...text.data.matchAll(/\\S+/g)];
            return words.map(({ index, 0: word }) => {
                const range = new Range();
                range.setStart(text, index);
                range.setEnd(text, index + word.length);
                return range.getClientRects().length;
            });
        })"""
        assert set(answers(page).locator("table").evaluate(lines)) == {1}


def test_an_answer_that_grows_never_looks_broken(page: Page) -> None:
    page.evaluate(
        """window.seen = new Set();
        new MutationObserver(() => document.querySelectorAll(".answer .text").forEach(({ innerText, innerHTML }) => {
            for (const raw of ["|--", "```", "\\\\frac{1}{2}$", "| a", "[ ]"]) if (innerText.includes(raw)) seen.add(raw);
            for (const tag of ["<h4>", "<h3>"]) if (innerHTML.includes(tag)) seen.add(tag);
        })).observe(document.getElementById("messages"), { childList: true, subtree: true, characterData: true });"""
    )
    said = "Words\n- one\n- [ ] two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$$\n\\frac{1}{2}\n$$\n\n```python\nx = 1\ny = 2\n```\n\nEnd."
    ask(page, f"type 0.03 {said}")
    expect(footers(page)).to_be_visible()
    for part in ("li", "table", "math", "pre"):
        expect(answers(page).locator(part).first).to_be_visible()
    assert page.evaluate("[...seen]") == []


def test_a_block_that_is_done_stays_the_same_element(page: Page) -> None:
    ask(page, "type 0.05 ```python\nx = 1\n```\n\n" + "word " * 40)
    code = answers(page).locator("figure")
    expect(answers(page)).to_contain_text("word word")
    code.evaluate("figure => figure.dataset.mine = 1")
    expect(footers(page)).to_be_visible()
    assert code.get_attribute("data-mine") == "1"


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["clipboard", "without TLS"])
def test_code_questions_and_answers_can_be_copied(
    browser: Browser, servers: list[Server], has_clipboard: bool
) -> None:
    code = 'print("<b>")\nprint(2)'
    said = f"**Look:**\n\n```python\n{code}\n```"
    with opening(browser, servers[0].address) as page:
        if has_clipboard:
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        else:
            page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
            page.reload()
        ask(page, f"say {said}")
        expect(footers(page)).to_be_visible()
        expected = {"Copy code": code, "Copy the answer": said, "Copy the question": f"say {said}"}
        for label, text in expected.items():
            button = page.get_by_role("button", name=label)
            button.focus()
            page.keyboard.press("Enter")
            copied = page.get_by_role("button", name="Copied")
            expect(copied).to_have_text("Copied")
            expect(page.get_by_role("status")).to_have_text("Copied")
            expect(copied).to_be_focused()
            message_box(page).fill("")
            message_box(page).press("Control+V")
            expect(message_box(page)).to_have_value(text)
            expect(button).to_have_text("Copy")


@pytest.fixture(scope="module")
def typed(database: URL, logs: Path, model: dict[str, str]) -> Iterator[Server]:
    """The service with agents that answer with more than text."""
    with service.service(logs / "typed-page", database, "chassis.tests.typed:app", **model) as server:
        yield server


@pytest.mark.parametrize("agent", ASKED)
def test_a_record_is_the_same_after_a_reload(browser: Browser, typed: Server, agent: str) -> None:
    with opening(browser, f"{typed.address}/#agent={agent}") as page:
        ask(page, ASKED[agent])
        expect(footers(page)).to_be_visible()
        shown = page.locator(".answer .body > :not(.footer)")
        before = shown.all_inner_texts()
        assert before
        page.reload()
        expect(shown).to_have_count(len(before))
        assert shown.all_inner_texts() == before
        if agent in ("orders", "native"):
            names = page.locator(".record").first.locator("> tbody > tr > th")
            order = ["zone", "a", "urgent", "done", "nothing", "tags", "none", "parts", "inner", "level"]
            expect(names).to_have_text(order)
            rows = dict(
                zip(
                    order,
                    page.locator(".record").first.locator("> tbody > tr > td").all_inner_texts(),
                    strict=True,
                )
            )
            assert rows["zone"] == "line one\nline two"
            assert (rows["a"], rows["urgent"], rows["done"], rows["nothing"]) == ("1.5", "yes", "no", NOTHING)
            assert (rows["tags"], rows["none"], rows["level"]) == ("b, a", NOTHING, "normal")


def test_text_that_looks_like_a_record_stays_text(page: Page) -> None:
    ask(page, f"say {json.dumps({'a': 1})}")
    for _ in range(2):
        expect(answers(page)).to_have_text('{"a": 1}')
        expect(page.locator(".record")).to_have_count(0)
        page.reload()


def test_enter_sends_unless_a_word_is_being_composed(page: Page) -> None:
    box = message_box(page)
    height = box.evaluate("box => box.offsetHeight")
    box.type("one")
    page.keyboard.press("Shift+Enter")
    box.type("two")
    expect(box).to_have_value("one\ntwo")
    assert box.evaluate("box => box.offsetHeight") > height
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    expect(page.locator(".question")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator(".question .said")).to_have_text("one\ntwo")
    expect(box).to_have_value("")
    expect(box).to_be_focused()


def test_escape_stops(page: Page) -> None:
    ask(page, "slow 300 0.1 tick")
    expect(answers(page)).to_contain_text("tick/2")
    page.keyboard.press("Escape")
    expect(footers(page)).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(message_box(page)).to_be_focused()


def wait_for_the_end(page: Page) -> None:
    """What comes in takes the view along a moment later."""
    view = "document.getElementById('view')"
    wait_in(page, f"{view}.scrollHeight - {view}.scrollTop - {view}.clientHeight < 60")


def test_who_reads_further_up_stays_there(page: Page) -> None:
    view, button = page.locator("#view"), page.get_by_role("button", name="To the end")
    ask(page, "type 0.08 " + "line\n\n" * 120)
    answers(page).locator("p").nth(30).wait_for()
    wait_for_the_end(page)
    expect(button).to_be_hidden()
    view.hover()
    page.mouse.wheel(0, -400)
    expect(button).to_be_visible()
    # A wheel scrolls smoothly.
    place = view.evaluate(
        """async view => {
            for (let top, still = 0; still < 20; still = view.scrollTop === top ? still + 1 : 0) {
                top = view.scrollTop;
                await new Promise(requestAnimationFrame);
            }
            return view.scrollTop;
        }"""
    )
    more = min(answers(page).locator("p").count() + 5, 120)
    answers(page).locator("p").nth(more - 1).wait_for()
    assert view.evaluate("view => view.scrollTop") == place
    button.click()
    expect(button).to_be_hidden()
    expect(answers(page).locator("p")).to_have_count(120)
    wait_for_the_end(page)
    expect(message_box(page)).to_be_focused()


def test_who_reads_at_the_end_stays_there_whatever_comes_in_at_once(page: Page) -> None:
    """Something tall may come in after the view was moved and before the page is told of that."""
    ask(page, "type 0.05 " + "line\n\n" * 40)
    answers(page).locator("p").nth(5).wait_for()
    page.evaluate(
        """() => {
            const text = document.querySelector(".answer .text");
            const add = () => {
                if (!document.body.hasAttribute("data-busy")) return;
                const tall = document.createElement("div");
                tall.style.minHeight = "200px";
                text.append(tall);
            };
            let left = 5;
            new ResizeObserver(() => left-- > 0 && setTimeout(add)).observe(document.getElementById("messages"));
        }"""
    )
    expect(answers(page).locator("p")).to_have_count(40)
    wait_for_the_end(page)
    expect(page.get_by_role("button", name="To the end")).to_be_hidden()


def test_fingers_find_room_and_nothing_zooms(browser: Browser, servers: list[Server]) -> None:
    with opening(browser, servers[0].address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        ask(page, "say ```python\nx = 1\n```")
        expect(footers(page)).to_be_visible()
        page.get_by_role("button", name="Edit the question").click()
        fields = "document.querySelectorAll('textarea, input:not([type=radio])')"
        assert page.evaluate(
            f"[...{fields}].every((box) => parseFloat(getComputedStyle(box).fontSize) >= 16)"
        )
        page.get_by_role("button", name="Agents and conversations").click()
        small = """[...document.querySelectorAll("button, summary, #side a, #agents label")]
            .map((target) => [target.textContent || target.title, target.getBoundingClientRect()])
            .filter(([, { width, height }]) => width && height && (width < 40 || height < 40))
            .map(([name, { width, height }]) => [name, width, height])"""
        assert [found for found in page.evaluate(small) if found[0] != "Skip to the message"] == []
