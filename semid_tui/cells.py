"""Lines of styled text, and the widget that draws them and repaints changed cells only.

Everything on the screens is drawn by pure functions that return `Line`s. `CellWidget.redraw` compares them with what
is there and asks Textual for the regions that differ: over SSH a dashboard costs what changes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from semid_tui.numbers import char_width
from semid_tui.numbers import width as text_width

if TYPE_CHECKING:
    from semid_tui.app import MonitorApp


class Span(NamedTuple):
    """A piece of a line: its text, the name of its style in the palette, and the action of a click on it."""

    text: str
    style: str = "text"
    click: str = ""


Marker = Literal["braille", "block", "ascii"]
Line = tuple[Span, ...]
Part = str | tuple[str, str] | Span
Cell = tuple[str, str, str]  # character, style, click; the second cell of a wide character is ""


def line(*parts: Part) -> Line:
    """A line from texts, (text, style) pairs and spans."""
    return tuple(
        part if isinstance(part, Span) else Span(part) if isinstance(part, str) else Span(*part) for part in parts
    )


def plain(lines: Iterable[Line]) -> str:
    """What lines say, without styles."""
    return "\n".join("".join(span.text for span in each).rstrip() for each in lines)


def length(spans: Line) -> int:
    """Cells that a line takes up."""
    return sum(text_width(span.text) for span in spans)


def rule(width: int, *title: Part, marker: Marker) -> Line:
    """A heading: `─title───────`."""
    bar = "-" if marker == "ascii" else "─"
    spans = line(*title)
    return (Span(bar, "rule"), *spans, Span(bar * max(0, width - length(spans) - 1), "rule"))


def ends(left: Line, right: Line, width: int) -> Line:
    """One part at the left end of a line and one at the right; the right one gives way."""
    gap = width - length(left) - length(right)
    return (*left, Span(" " * gap), *right) if gap >= 1 else left


def cells_of(spans: Line, width: int) -> list[Cell]:
    """A line as exactly so many cells."""
    cells: list[Cell] = []
    for text, style, click in spans:
        for character in text:
            wide = char_width(character)
            if wide == 0:
                if cells:  # a combining character belongs to the one before
                    cells[-1] = (cells[-1][0] + character, *cells[-1][1:])
                continue
            if len(cells) + wide > width:
                break
            cells.append((character, style, click))
            if wide == 2:
                cells.append(("", style, click))
    cells += [(" ", "text", "")] * (width - len(cells))
    return cells


def changed_spans(before: Sequence[Cell], after: Sequence[Cell], gap: int = 4) -> list[tuple[int, int]]:
    """Where two lines of the same width differ, as (start, end); spans less than `gap` apart are one."""
    spans: list[tuple[int, int]] = []
    for position, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if spans and position - spans[-1][1] < gap:
            spans[-1] = (spans[-1][0], position + 1)
        else:
            spans.append((position, position + 1))
    return spans


class CellWidget(Widget, inherit_bindings=False):
    """Draws lines. Subclasses override `lines`, which depends on what they hold and on the size only."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._cells: list[list[Cell]] = []
        self._drawn_size = (0, 0)

    @property
    def monitor(self) -> MonitorApp:
        return cast("MonitorApp", self.app)

    def lines(self, width: int, height: int) -> Sequence[Line]:
        """What there is to draw."""
        return ()

    def _draw(self) -> bool:
        """Draw anew; whether the size is another than the last time."""
        width, height = self.size
        cells = [cells_of(each, width) for each in list(self.lines(width, height))[:height]]
        cells += [cells_of((), width) for _ in range(height - len(cells))]
        self._cells = cells
        resized = self._drawn_size != (width, height)
        self._drawn_size = (width, height)
        return resized

    def redraw(self) -> None:
        """Draw anew, and repaint the cells that changed."""
        if not self.size.area:
            return
        before = self._cells
        if self._draw():
            self.refresh()
            return
        regions = [
            Region(start, y, end - start, 1)
            for y, (old, new) in enumerate(zip(before, self._cells, strict=True))
            if old != new
            for start, end in changed_spans(old, new)
        ]
        if regions:
            self.refresh(*regions)

    def on_resize(self) -> None:
        self.redraw()

    def on_mount(self) -> None:
        # Lines that were drawn in the old theme's colours are kept by Textual until they are refreshed.
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        if self._drawn_size != self.size:
            self._draw()  # no event of the new size has come yet
        if y >= len(self._cells):
            return Strip.blank(self.size.width)
        palette = self.monitor.palette
        behind = Style(bgcolor=self.background_colors[1].rich_color)
        segments = [
            Segment("".join(cell[0] for cell in group), behind + palette[style])
            for style, group in groupby(self._cells[y], key=lambda cell: cell[1])
        ]
        return Strip(segments, len(self._cells[y]))

    async def on_click(self, event: events.Click) -> None:
        if 0 <= event.y < len(self._cells) and 0 <= event.x < len(self._cells[event.y]):
            action = self._cells[event.y][event.x][2]
            if action:
                event.stop()
                await self.run_action(action)
