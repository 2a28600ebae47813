"""The widget that repaints the cells that changed, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from semid_tui.context import MonitorContext
from semid_tui.render.spans import Cell, Line, cells_of, changed_spans


class CellWidget(Widget, inherit_bindings=False):
    """Draws lines. Subclasses override `lines`, which depends on what they hold and on the size only."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._cells: list[list[Cell]] = []
        self._drawn_size = (0, 0)

    @property
    def monitor(self) -> MonitorContext:
        return cast(MonitorContext, self.app)

    def lines(self, width: int, height: int) -> Sequence[Line]:
        """The lines to draw, at most `height` of `width` cells; further ones are cut off."""
        return ()

    def _draw(self) -> bool:
        """Draw anew. Returns whether the size has changed since the last time."""
        width, height = self.size
        cells = [cells_of(line, width) for line in list(self.lines(width, height))[:height]]
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
