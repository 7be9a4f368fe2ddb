"""A flow as a picture (SVG): steps from left to right, the topics that they write to the right of them.

Plain SVG on a white ground; no fonts or scripts are loaded.
"""

from html import escape
from typing import Final

from streams.flow.builder import Flow
from streams.flow.declaration import Pipeline
from streams.flow.plan import FoldTo, Output, Process, SessionTo, Source, Step, To, WindowTo, written_by
from streams.flow.topology import beside, said, topic_of

_CHARACTER_PX: Final = 7.3
"""Width of a character of the 12-pixel monospaced font."""
_BOX_HEIGHT_PX: Final = 44
_ROW_PX: Final = 60
_GAP_PX: Final = 44
_PADDING_PX: Final = 12
_MARGIN_PX: Final = 16
_STYLE: Final = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1b2733}"
    ".small{font-size:10px;fill:#5a6b7b}.step{fill:#e8f1fb;stroke:#2f6db3}.topic{fill:#f3f0e6;stroke:#8a7434}"
    ".line{stroke:#5a6b7b;stroke-width:1.4;fill:none;marker-end:url(#arrow)}"
)
_ARROW: Final = (
    '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L10,5 L0,10 z" fill="#5a6b7b"/></marker>'
)


def drawn(flow: Flow, pipeline: Pipeline) -> str:
    """The picture as an SVG document."""
    return _Drawing(flow, pipeline).document()


class _Drawing:
    def __init__(self, flow: Flow, pipeline: Pipeline) -> None:
        self._flow, self._pipeline = flow, pipeline
        self._parts: list[str] = []
        self._width = self._height = 0.0

    def document(self) -> str:
        source = self._flow.plan.steps[0]
        self._draw(source, _MARGIN_PX, _MARGIN_PX)
        y = _MARGIN_PX + self._rows(source) * _ROW_PX + 8
        for name, what in beside(self._pipeline):
            self._text(_MARGIN_PX, y, f"{name}: {what}", "small")
            y += 15
        self._height = max(self._height, y)
        return self._framed()

    def _draw(self, step: Step, x: float, top: float) -> float:
        """Draw a step and all that gets its events, from `top` down; returns where its box begins from above."""
        middle = top + (self._rows(step) - 1) * _ROW_PX / 2
        kind = "topic" if isinstance(step.verb, Source) else "step"
        end = self._box(x, middle, *self._words(step), kind)
        for after in self._after(step):
            self._arrow(end, middle, end + _GAP_PX, self._draw(after, end + _GAP_PX, top))
            top += self._rows(after) * _ROW_PX
        for topic in self._topics(step):
            self._arrow(end, middle, end + _GAP_PX, top)
            self._box(end + _GAP_PX, top, topic, "", "topic")
            top += _ROW_PX
        return middle

    def _rows(self, step: Step) -> int:
        """Over how many rows of the picture a step and what gets its events extend."""
        return max(1, sum(map(self._rows, self._after(step))) + len(self._topics(step)))

    def _after(self, step: Step) -> list[Step]:
        """Steps that get the events of `step`; those that only write them on have none."""
        plan = self._flow.plan
        if isinstance(step.verb, Output):
            return []
        return [one for one in plan.steps if one.after is not None and plan.giver(one) is step]

    def _topics(self, step: Step) -> list[str]:
        return [f"{self._pipeline.prefix}{topic}" for topic in written_by(step.verb)]

    def _words(self, step: Step) -> tuple[str, str]:
        what, details = said(step, self._pipeline)
        match step.verb:
            case Source():
                return topic_of(step, self._pipeline) or "", f"key {step.verb.key}"
            case To():
                return "to", details
            case Process():
                return what, details.partition(", ")[0]
            case FoldTo() | WindowTo() | SessionTo():
                name, _, rest = details.partition(", ")
                return f"{step.verb.kind} {name}", rest
            case _:
                return what, details

    def _box(self, x: float, y: float, first: str, second: str, kind: str) -> float:
        """Draw a box; returns its right end."""
        width = max(len(first) * _CHARACTER_PX, len(second) * _CHARACTER_PX * 10 / 12) + 2 * _PADDING_PX
        self._parts.append(
            f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_BOX_HEIGHT_PX}" rx="6"/>'
        )
        self._text(x + _PADDING_PX, y + (19 if second else 27), first)
        if second:
            self._text(x + _PADDING_PX, y + 34, second, "small")
        self._width = max(self._width, x + width)
        self._height = max(self._height, y + _BOX_HEIGHT_PX)
        return x + width

    def _text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self._width = max(self._width, x + len(text) * _CHARACTER_PX * (10 / 12 if kind else 1))
        named = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{named} x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>')

    def _arrow(self, x_1: float, y_1: float, x_2: float, y_2: float) -> None:
        half, bend = _BOX_HEIGHT_PX / 2, (x_1 + x_2) / 2
        start, end = f"{x_1:.0f},{y_1 + half:.0f}", f"{x_2 - 2:.0f},{y_2 + half:.0f}"
        bends = f"{bend:.0f},{y_1 + half:.0f} {bend:.0f},{y_2 + half:.0f}"
        self._parts.append(f'<path class="line" d="M{start} C{bends} {end}"/>')

    def _framed(self) -> str:
        width, height = self._width + _MARGIN_PX, self._height + _MARGIN_PX
        title = f"Flow {escape(self._flow.name)}"
        size = f'width="{width:.0f}" height="{height:.0f}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
                f"<title>{title}</title>",
                f"<style>{_STYLE}</style>",
                f"<defs>{_ARROW}</defs>",
                f'<rect {size} rx="8" fill="#ffffff"/>',
                *self._parts,
                "</svg>",
                "",
            ]
        )
