"""Cutting a text into passages: along its headings, then its paragraphs, and through a long one between words."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# In characters; about 300 and 50 tokens of English.
SIZE = 1_200
OVERLAP = 200
TITLE_LENGTH = 300

# Headings as Markdown and reStructuredText write them. Code between fences comes first, as it may hold both. What a
# heading ends in is cut off in code: as a pattern it would take as many steps as the square of a line's length.
HEADING = re.compile(
    r"""^[ \t]*(?P<fence>```|~~~).*?(?:^[ \t]*(?P=fence)|\Z)
    |^(?P<hashes>\#{1,6})[ \t]+(?P<heading>[^\n]+)$
    |^(?:[=~^*+\#"-]{3,}\n)?[ ]?(?P<underlined>[^\s=~^*+\#-][^\n]*)\n(?P<line>[=~^*+\#"-])(?P=line){2,}[ \t]*$""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
PARAGRAPHS = re.compile(r"\n\s*\n")
PIECE = re.compile(r"\S.{0,SIZE}(?!\S)|\S{SIZE}".replace("SIZE", str(SIZE)), re.DOTALL)


class Passage(NamedTuple):
    """A part of a text, and the headings that it stands under."""

    title: str
    text: str


def split(text: str, name: str) -> Iterator[Passage]:
    """Yield the passages of a text; `name` is the title of what stands under no heading."""
    for title, body in _sections(text, name):
        passage = ""
        for piece in (piece for part in PARAGRAPHS.split(body) for piece in PIECE.findall(part)):
            if passage and len(passage) + len(piece) > SIZE:
                yield Passage(title, passage)
                tail = passage[-OVERLAP:].partition(" ")[2].strip()
                passage = tail if len(tail) + len(piece) <= SIZE else ""
            passage = f"{passage}\n\n{piece.rstrip()}" if passage else piece.rstrip()
        if passage:
            yield Passage(title, passage)


def _sections(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield each section's headings, joined, and its text."""
    headings: dict[int, str] = {}
    lines: list[str] = []  # those that underline headings, each for a level, in the order in which they come
    title, start = name, 0
    for found in HEADING.finditer(text):
        if found["fence"]:
            continue
        yield title, text[start : found.start()]
        start = found.end()
        if found["hashes"]:
            level = len(found["hashes"])
        else:
            lines += [found["line"]] if found["line"] not in lines else []
            level = lines.index(found["line"]) + 1
        headings = {key: value for key, value in headings.items() if key < level}
        # All of a title's parts are joined for each heading below them.
        headings[level] = (_closed(found["heading"] or "") or found["underlined"].strip())[:TITLE_LENGTH]
        title = " > ".join(headings.values())[:TITLE_LENGTH]
    yield title, text[start:]


def _closed(heading: str) -> str:
    """Return a heading of Markdown's without the hashes that it may end in."""
    return heading.rstrip("#").rstrip(" \t") or heading[:1]
