"""Draws curves on logarithmic axes as SVG, with colours for light and dark mode."""

import dataclasses
import html
import math

WIDTH, HEIGHT = 420, 300
LEFT, TOP, BOTTOM, RIGHT = 50, 46, 44, 12
COLOURS = ("#6b7280", "#0969da", "#cf222e", "#1a7f37")
COLOURS_IN_DARK = ("#9ca3af", "#58a6ff", "#ff7b72", "#3fb950")


@dataclasses.dataclass
class Panel:
    """Lines over the same places. The places are at equal distances."""

    title: str
    places: list
    lines: dict


def draw(title, panels):
    classes = [f".l{n} {{ stroke: {c}; fill: {c} }}" for n, c in enumerate(COLOURS)]
    dark = [f".l{n} {{ stroke: {c}; fill: {c} }}" for n, c in enumerate(COLOURS_IN_DARK)]
    width, height = WIDTH * len(panels), HEIGHT + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">',
        "<style>",
        "text { font: 12px system-ui, sans-serif; fill: #1f2328; stroke: none } .grid { stroke: #d1d9e0 }",
        *classes,
        "@media (prefers-color-scheme: dark) {",
        "text { fill: #e6edf3 } .grid { stroke: #3d444d }",
        *dark,
        "}",
        "</style>",
        f'<text x="{LEFT}" y="18" font-weight="bold">{html.escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        out.append(f'<g transform="translate({WIDTH * number} 0)">')
        out += panel_lines(panel)
        out.append("</g>")
    x = LEFT
    for number, name in enumerate(panels[0].lines):
        out.append(f'<line class="l{number}" x1="{x}" y1="{height - 12}" x2="{x + 18}" y2="{height - 12}" stroke-width="2"/>')
        out.append(f'<text x="{x + 24}" y="{height - 8}">{html.escape(name)}</text>')
        x += 50 + 7 * len(name)
    return "\n".join([*out, "</svg>", ""])


def panel_lines(panel):
    values = [value for line in panel.lines.values() for value in line]
    low, high = scale(min(values)), scale(max(values))
    low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (scale(value) - low) / (high - low))

    def x(place):
        return LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * place / (len(panel.places) - 1)

    for power in range(low, high + 1):
        at = y(10**power)
        yield f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>'
    for place, name in enumerate(panel.places):
        yield f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{html.escape(name)}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(panel.title)}</text>'
    for number, line in enumerate(panel.lines.values()):
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(line))
        yield f'<polyline class="l{number}" style="fill: none" stroke-width="2" points="{points}"/>'
        for place, value in enumerate(line):
            yield f'<circle class="l{number}" cx="{x(place):.1f}" cy="{y(value):.1f}" r="2.5"><title>{value:.0f} µs</title></circle>'


def scale(value):
    return math.log10(value)
