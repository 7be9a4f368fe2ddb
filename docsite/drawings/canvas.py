"""Shapes of a figure, as SVG."""

from html import escape
from typing import Final

STYLE: Final = """
.fig { --ink: #1f2430; --quiet: #667085; --line: #c5cad6; --fill: #f3f5f9; --accent: #2f5fd0; --accent-fill: #e3ebfd;
  --warn: #b5480f; --warn-fill: #fdebdd; --good: #1b7a4b; --good-fill: #dff4e8; }
@media (prefers-color-scheme: dark) { .fig { --ink: #e6e8ee; --quiet: #9aa3b5; --line: #4a5163; --fill: #232836;
  --accent: #8fb0ff; --accent-fill: #24345c; --warn: #ffa76b; --warn-fill: #4a2c16; --good: #6fd6a2;
  --good-fill: #173d2b; } }
.fig text { font-family: system-ui, sans-serif; font-size: 13px; fill: var(--ink); }
.fig .small { font-size: 11.5px; fill: var(--quiet); }
.fig .mono { font-family: ui-monospace, monospace; font-size: 12px; }
.fig .strong { font-weight: 600; }
.fig .accent { fill: var(--accent); } .fig .warn { fill: var(--warn); } .fig .good { fill: var(--good); }
"""
COLOURS: Final = {
    "plain": ("--fill", "--line"),
    "accent": ("--accent-fill", "--accent"),
    "warn": ("--warn-fill", "--warn"),
    "good": ("--good-fill", "--good"),
}


class Canvas:
    """A figure under construction; positions are in pixels from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        """`title` is what a reader hears who does not see the figure."""
        self._size = width, height
        self._title = title
        self._parts: list[str] = []

    def text(self, x: float, y: float, words: str, look: str = "", anchor: str = "start") -> None:
        """Words; `look` is any of `small`, `mono`, `strong` and a colour."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{look}">{escape(words, quote=False)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, words: str = "", colour: str = "plain") -> None:
        """A box with words in its middle, a line each."""
        fill, line = COLOURS[colour]
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
            f'style="fill:var({fill});stroke:var({line});stroke-width:1.2"/>'
        )
        lines = words.split("\n") if words else []
        top = y + height / 2 + 4.5 - 8 * (len(lines) - 1)
        for place, line_of_text in enumerate(lines):
            self.text(x + width / 2, top + 16 * place, line_of_text, "small" if place else "", "middle")

    def area(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A coloured ground without a border."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'style="fill:var({COLOURS[colour][0]});opacity:.75"/>'
        )

    def line(self, points: list[tuple[float, float]], colour: str = "plain", *, dashed: bool = False) -> None:
        """A line through points."""
        self._path(points, colour, 'stroke-dasharray="4 4"' if dashed else "")

    def arrow(self, points: list[tuple[float, float]], colour: str = "quiet", *, dashed: bool = False) -> None:
        """A line through points with a head at its end; the last part is straight across or down."""
        self._path(points, colour, 'stroke-dasharray="4 4"' if dashed else "")
        (x0, y0), (x, y) = points[-2:]
        length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
        dx, dy = (x - x0) / length * 8, (y - y0) / length * 8
        corners = [(x, y), (x - dx - dy / 2, y - dy + dx / 2), (x - dx + dy / 2, y - dy - dx / 2)]
        drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        self._parts.append(f'<polygon points="{drawn}" style="fill:var({_line_colour(colour)})"/>')

    def dot(self, x: float, y: float, colour: str = "accent", words: str = "") -> None:
        """A point with a word above it."""
        fill, line = COLOURS[colour]
        self._parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="6" style="fill:var({fill});stroke:var({line});stroke-width:2"/>'
        )
        if words:
            self.text(x, y - 11, words, "small", "middle")

    def cross(self, x: float, y: float) -> None:
        """A cross that stands for a crash."""
        for sign in (1, -1):
            self._path([(x - 6, y - 6 * sign), (x + 6, y + 6 * sign)], "warn", 'stroke-width="2.4"')

    def axis(self, x: float, y: float, width: float, words: str) -> None:
        """A line of time to the right."""
        self.arrow([(x, y), (x + width, y)])
        self.text(x + width, y + 18, words, "small", "end")

    def svg(self) -> str:
        """The figure as a file."""
        width, height = self._size
        box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" {box} role="img">',
                f"<title>{escape(self._title, quote=False)}</title>",
                f"<style>{STYLE}</style>",
                *self._parts,
                "</svg>",
                "",
            ]
        )

    def _path(self, points: list[tuple[float, float]], colour: str, more: str = "") -> None:
        drawn = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(f'<polyline points="{drawn}" {more} style="fill:none;stroke:var({_line_colour(colour)})"/>')


def _line_colour(colour: str) -> str:
    return f"--{colour}" if colour not in COLOURS else COLOURS[colour][1]
