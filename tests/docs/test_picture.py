"""The picture in the README: safe to embed, small, readable where nothing moves, and from nobody's machine."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.animation import Frame, draw

ROOT = Path(__file__).resolve().parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"
# A path that only the machine has on which it was recorded.
MACHINE = r"(?<![~\w.])/(root|home|tmp|Users|var|work)\b"


def texts(svg: str, *, at_rest: bool) -> list[str]:
    """Return the lines of text; with `at_rest` only those that are seen where nothing moves."""
    root = ElementTree.fromstring(svg)  # noqa: S314 -- our own file
    return [
        "".join(text.itertext())
        for text in root.iter(f"{SVG}text")
        if not (at_rest and "visibility:hidden" in text.get("style", ""))
    ]


@pytest.mark.parametrize("name", ["demo.svg", "lint.svg"])
def test_picture_is_small_and_self_contained(name: str) -> None:
    svg = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert len(svg.encode()) < 150_000
    elements = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}  # noqa: S314
    assert elements <= {"svg", "style", "rect", "circle", "g", "text", "tspan"}
    assert not re.search(r"href|url\(|@import|@font-face", svg)


def test_picture_shows_a_bake_that_migrated_and_no_path_of_a_machine() -> None:
    shown = "\n".join(texts((ROOT / "docs" / "demo.svg").read_text(encoding="utf-8"), at_rest=True))
    assert "has migrated a real PostgreSQL" in shown
    assert "Running upgrade  -> " in shown
    assert not re.search(MACHINE, shown)


def test_picture_of_the_check_shows_effects_and_findings() -> None:
    shown = "\n".join(texts((ROOT / "docs" / "lint.svg").read_text(encoding="utf-8"), at_rest=True))
    assert "UPDATE runs SET price = 0" in shown
    assert "changes 100 of 100 rows" in shown
    for rule in ("column-still-read", "rows-under-lock", "index-under-lock"):
        assert f"db/LINT.md#{rule}" in shown
    assert not re.search(MACHINE, shown)


@pytest.mark.parametrize(
    ("screens", "seen", "at_rest"),
    [
        ([["$ l"], ["$ ls"], ["$ ls", "a & <b>"]], ["$ l", "$ ls", "a & <b>"], ["$ ls", "a & <b>"]),
        ([["- wait"], ["/ wait"], ["- wait"], ["ok"]], ["- wait", "/ wait", "- wait", "ok"], ["ok"]),
        ([["gone"], [""]], ["gone"], []),
    ],
)
def test_each_text_is_drawn_for_as_long_as_it_stood(
    screens: list[list[str]], seen: list[str], at_rest: list[str]
) -> None:
    height = max(len(screen) for screen in screens)
    frames = [
        Frame(
            float(second),
            [((text, "default", False),) if text else () for text in screen + [""] * (height - len(screen))],
            (0, 0),
        )
        for second, screen in enumerate(screens)
    ]
    svg = draw(frames, 80)
    assert texts(svg, at_rest=False) == seen
    assert texts(svg, at_rest=True) == at_rest
