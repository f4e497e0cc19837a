"""Draw the frames of a terminal as one animated SVG: CSS only, so that it also moves within an <img>.

Each text that stood in a row is drawn once and shown while it stood there; the window scrolls over
the rows. Where nothing can or should move, the last frame is what is seen.
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

Run = tuple[str, str, bool]
Row = tuple[Run, ...]

FONT, CELL, LEADING, MARGIN, BAR, VISIBLE_ROWS = 14, 8.43, 19, 16, 34, 34
LABEL = "A terminal: a workspace is baked, and its migrations have run on a real PostgreSQL"
HOLD = 6.0  # seconds for which the last frame stands before it begins again
COLOURS = {
    "default": "#d5d9e0", "black": "#7d8590", "red": "#ff8b82", "green": "#7ee08a", "brown": "#e6c07b",
    "blue": "#7fb5ff", "magenta": "#d8a6ff", "cyan": "#6fd6e0", "white": "#ffffff",
}  # fmt: skip


class Frame(NamedTuple):
    """The rows of the screen from `time` on, in seconds, and where the cursor stands (column, row)."""

    time: float
    rows: Sequence[Row]
    cursor: tuple[int, int]


def draw(frames: Sequence[Frame], columns: int, label: str = LABEL) -> str:
    """Return the SVG of the frames; `label` says what it shows to those who can't see it."""
    seconds = frames[-1].time + HOLD
    width = round(columns * CELL + 2 * MARGIN)
    height = BAR + VISIBLE_ROWS * LEADING + MARGIN
    rules: dict[str, str] = {}

    def animated(steps: Sequence[tuple[float, str]]) -> str:
        """Return the name of the animation that takes these steps."""
        body = "".join(f"{100 * time / seconds:.4g}%{{{style}}}" for time, style in steps)
        return rules.setdefault(body, f"a{len(rules)}")

    texts = []
    for shown_from, shown_until, y, row in stays(frames):
        steps = [(0.0, "visibility:hidden"), (shown_from, "visibility:visible")]
        if shown_until is not None:
            steps.append((shown_until, "visibility:hidden"))
        style = f"animation-name:{animated(steps[1:] if shown_from == 0 else steps)}"
        if shown_until is not None:
            style += ";visibility:hidden"
        texts.append(f'<text y="{(y + 1) * LEADING - 5}" style="{style}">{spans(row)}</text>')

    at = [(frame.time, *frame.cursor) for frame in frames]
    cursor = animated([(time, f"transform:{place(x * CELL, y * LEADING)}") for time, x, y in at])
    tops = [(time, max(0, y - VISIBLE_ROWS + 1)) for time, _, y in at]
    changes = [tops[0], *(b for a, b in pairwise(tops) if a[1] != b[1])]
    scroll = animated([(time, f"transform:{place(0, -top * LEADING)}") for time, top in changes])
    _, last_x, last_y = at[-1]
    keyframes = "\n".join(f"@keyframes {name}{{{body}}}" for body, name in rules.items())
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
aria-label="{escape(label)}">
<style>
text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:{COLOURS["default"]}}}
.b{{font-weight:700}}
@media (prefers-reduced-motion:no-preference){{.m,.m *{{animation:{seconds:.4g}s step-end infinite}}}}
{keyframes}
</style>
<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9" fill="#1b1f27" stroke="#59606b"/>
<g fill="#59606b"><circle cx="20" cy="17" r="5.5"/><circle cx="38" cy="17" r="5.5"/><circle cx="56" cy="17" r="5.5"/></g>
<svg x="{MARGIN}" y="{BAR + 5}" width="{width - 2 * MARGIN}" height="{VISIBLE_ROWS * LEADING}">
<g class="m" style="animation-name:{scroll};transform:{place(0, -tops[-1][1] * LEADING)}">
<rect width="{CELL}" height="17" fill="#8b949e" style="animation-name:{cursor};transform:{place(last_x * CELL, last_y * LEADING)}"/>
{chr(10).join(texts)}
</g>
</svg>
</svg>
"""


def stays(frames: Sequence[Frame]) -> list[tuple[float, float | None, int, Row]]:
    """Return each text that stood in a row: from when, until when (None: to the end), row, text."""
    found: list[tuple[float, float | None, int, Row]] = []
    for y in range(len(frames[0].rows)):
        row: Row = ()
        since = 0.0
        for frame in frames:
            if frame.rows[y] != row:
                if row:
                    found.append((since, frame.time, y, row))
                row, since = frame.rows[y], frame.time
        if row:
            found.append((since, None, y, row))
    return found


def spans(row: Row) -> str:
    """Return the runs of a row as SVG, each stretched to its cells, whatever font there is."""
    parts = []
    column = 0
    for text, colour, bold in row:
        if text.strip():
            attributes = f'x="{column * CELL:.5g}" textLength="{len(text) * CELL:.5g}"'
            attributes += "" if colour == "default" else f' fill="{COLOURS.get(colour, "#" + colour)}"'
            attributes += ' class="b"' if bold else ""
            parts.append(f"<tspan {attributes}>{escape(text, quote=False)}</tspan>")
        column += len(text)
    return "".join(parts)


def place(x: float, y: float) -> str:
    """Return the CSS that moves a thing there."""
    return f"translate({x:.5g}px,{y:.5g}px)"
