"""A small raster of dots in braille, blocks or ASCII."""

from __future__ import annotations

from semid_tui.context import Marker
from semid_tui.render.spans import Line, Span

# Dots per cell, across and down.
RESOLUTION: dict[Marker, tuple[int, int]] = {"braille": (2, 4), "block": (1, 2), "ascii": (1, 1)}
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLOCKS = " ▀▄█"


class Canvas:
    """Dots in two layers: `back` is drawn first, `front` gives its style to every cell that it touches."""

    def __init__(self, width: int, height: int, marker: Marker) -> None:
        self.width, self.height, self.marker = width, height, marker
        self.across, self.down = RESOLUTION[marker]
        self.dots_wide, self.dots_high = width * self.across, height * self.down
        self._dots = [[0] * width for _ in range(height)]
        self._styles = [["text"] * width for _ in range(height)]
        self._front = [[False] * width for _ in range(height)]
        self._texts: dict[tuple[int, int], tuple[str, str]] = {}

    def dot(self, x: int, y: int, style: str, *, front: bool = False) -> None:
        """Set one dot; (0, 0) is the top left one. Outside nothing happens."""
        if not (0 <= x < self.dots_wide and 0 <= y < self.dots_high):
            return
        column, row = x // self.across, y // self.down
        bit = _BRAILLE[y % 4][x % 2] if self.marker == "braille" else 1 << (y % self.down)
        if front and not self._front[row][column] and self.marker != "braille":
            self._dots[row][column] = 0  # coarse markers: the line hides what is behind it
        if front or not self._front[row][column] or self.marker == "braille":
            self._dots[row][column] |= bit
        if front or not self._front[row][column]:
            self._styles[row][column] = style
        self._front[row][column] |= front

    def column(self, x: int, top: int, bottom: int, style: str, *, front: bool = False) -> None:
        """Dots from one height to another."""
        for y in range(min(top, bottom), max(top, bottom) + 1):
            self.dot(x, y, style, front=front)

    def put(self, column: int, row: int, character: str, style: str) -> None:
        """A character in place of a cell's dots."""
        self._texts[column, row] = (character, style)

    def is_empty(self, column: int, row: int) -> bool:
        return not self._dots[row][column]

    def line(self, row: int) -> Line:
        """One row as spans."""
        spans: list[Span] = []
        for column in range(self.width):
            dots, style = self._dots[row][column], self._styles[row][column]
            if (column, row) in self._texts:
                character, style = self._texts[column, row]
            elif not dots:
                character, style = " ", "text"
            elif self.marker == "braille":
                character = chr(0x2800 + dots)
            elif self.marker == "block":
                character = _BLOCKS[dots] if self._front[row][column] else "░"
            else:
                character = "*" if self._front[row][column] else ":"
            if spans and spans[-1].style == style:
                spans[-1] = Span(spans[-1].text + character, style)
            else:
                spans.append(Span(character, style))
        return tuple(spans)
