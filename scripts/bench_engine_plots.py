"""Plots as plain SVG, readable on light and on dark paper: lines over batch sizes, and bars."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 52, 48  # Margins; the names of lines stand in the right one.
LABEL_PITCH: Final = 15
TICKS_MIN: Final = 4
BAR_HEIGHT, BAR_GAP, BAR_LEFT, BAR_RIGHT = 20, 8, 200, 80

# Two steps of each colour, one for either paper: dark enough on white, light enough on black.
COLOURS: Final = (
    ("#0b6e4f", "#4fd1a5"), ("#b5461c", "#ff9b71"), ("#3457b2", "#8fb0ff"), ("#8a2d8f", "#e39bea"),
    ("#8a6d00", "#e6c84f"), ("#4d5b66", "#b4c2cd"), ("#0f7a8a", "#67d4e3"), ("#a31d4b", "#ff8fb3"),
    ("#5d6b1e", "#c4d46a"),
)  # fmt: skip
OURS_COLOUR, OTHERS_COLOUR = 0, 5

Points = Mapping[float, float]


def _rules(paper: int) -> str:
    """Plain class rules: not every program that draws an SVG knows CSS variables."""
    return "".join(
        f".l{place}{{stroke:{pair[paper]}}}.p{place}{{fill:{pair[paper]}}}"
        for place, pair in enumerate(COLOURS)
    )


def _style() -> str:
    return (
        "<style>text{font:12px system-ui,sans-serif;fill:#26323a}"
        ".t{font-size:15px;font-weight:600}.g{stroke:#8a949c;stroke-opacity:.3}"
        f".l{{fill:none;stroke-width:2}}{_rules(0)}"
        f"@media(prefers-color-scheme:dark){{text{{fill:#dde5ea}}{_rules(1)}}}</style>"
    )


def _document(width: int, height: int, title: str, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>{escape(title)}</title>{_style()}'
    )
    return "\n".join((head, *body, "</svg>\n"))


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def ticks(greatest: float) -> list[float]:
    """Round numbers from 0 to at least `greatest`, 1, 2 or 5 times a power of ten apart."""
    assert greatest > 0
    power = 10.0 ** math.floor(math.log10(greatest))
    steps = (power / 10 * factor for factor in (1, 2, 5, 10))
    pitch = next(step for step in steps if greatest / step <= 2 * TICKS_MIN or step == power)
    count = math.ceil(greatest / pitch - 1e-9)
    return [pitch * place for place in range(count + 1)]


def spread(places: Sequence[float], pitch: float) -> list[float]:
    """The same places, moved down as little as it takes for neighbours to be `pitch` apart."""
    moved = [0.0] * len(places)
    least = -math.inf
    for index in sorted(range(len(places)), key=lambda one: places[one]):
        moved[index] = least = max(places[index], least + pitch)
    return moved


def lines_plot(title: str, below: str, series: Mapping[str, Points]) -> str:
    """A line for each name over powers of two (batch sizes); from 0, so that lengths compare."""
    xs = sorted({x for points in series.values() for x in points})
    greatest = max(y for points in series.values() for y in points.values())
    marks = ticks(greatest)
    low, high = math.log2(xs[0]), math.log2(xs[-1])

    def across(x: float) -> float:
        share = (math.log2(x) - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - y / marks[-1] * (HEIGHT - TOP - BOTTOM)

    body = [_text(LEFT - 44, 24, title, "t")]
    for mark in marks:
        y = down(mark)
        body.append(f'<path class="g" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        body.append(_text(LEFT - 8, y + 4, f"{mark:g}", anchor="end"))
    for x in xs:
        body.append(_text(across(x), HEIGHT - BOTTOM + 18, f"{x:g}", anchor="middle"))
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, below, anchor="middle"))
    shown = [(name, sorted(points.items())) for name, points in series.items() if points]
    labels = spread([down(points[-1][1]) for _, points in shown], LABEL_PITCH)
    for place, ((name, points), label) in enumerate(zip(shown, labels, strict=True)):
        colour = place % len(COLOURS)
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in points)
        body.append(f'<path class="l l{colour}" d="M{path}"/>')
        for x, y in points:
            dot = f'cx="{across(x):.1f}" cy="{down(y):.1f}" r="3"'
            body.append(f'<circle class="p{colour}" {dot}/>')
        body.append(_text(across(points[-1][0]) + 10, label + 4, name, f"p{colour}"))
    return _document(WIDTH, HEIGHT, title, body)


def bars_plot(title: str, values: Mapping[str, float], unit: str) -> str:
    """A bar for each name, in the order given, with its number at its end."""
    greatest = max(values.values())
    height = TOP + len(values) * (BAR_HEIGHT + BAR_GAP) + BAR_GAP
    body = [_text(20, 24, title, "t")]
    for place, (name, value) in enumerate(values.items()):
        y = TOP + place * (BAR_HEIGHT + BAR_GAP)
        length = max(1.0, value / greatest * (WIDTH - BAR_LEFT - BAR_RIGHT)) if greatest else 1.0
        body.append(_text(BAR_LEFT - 10, y + 15, name, anchor="end"))
        colour = OURS_COLOUR if name.startswith("ours") else OTHERS_COLOUR
        box = f'x="{BAR_LEFT}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2"'
        body.append(f'<rect class="p{colour}" {box}/>')
        said = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        body.append(_text(BAR_LEFT + length + 6, y + 15, f"{said} {unit}".rstrip()))
    return _document(WIDTH, height, title, body)
