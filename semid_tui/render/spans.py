"""Lines of styled text. Every screen is drawn by pure functions that return `Line`s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes

from semid_tui.context import Marker


class Span(NamedTuple):
    """A piece of a line: its text, the name of its style in the palette, and the action of a click on it."""

    text: str
    style: str = "text"
    click: str = ""


Line = tuple[Span, ...]
Part = str | tuple[str, str] | Span
Cell = tuple[str, str, str]  # character, style, click; the second cell of a wide character is ""


def line(*parts: Part) -> Line:
    """A line from texts, (text, style) pairs and spans."""
    return tuple(
        part if isinstance(part, Span) else Span(part) if isinstance(part, str) else Span(*part) for part in parts
    )


def plain(lines: Iterable[Line]) -> str:
    """The text of lines, without styles."""
    return "\n".join("".join(span.text for span in spans).rstrip() for spans in lines)


def length(spans: Line) -> int:
    """Cells that a line takes up."""
    return sum(cell_len(span.text) for span in spans)


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
    """A line as exactly so many cells. A grapheme that does not fit whole is left out, with all that follows."""
    cells: list[Cell] = []
    for text, style, click in spans:
        for start, end, wide in split_graphemes(text)[0]:
            grapheme = text[start:end]
            if wide == 0:
                if cells:  # a combining character belongs to the grapheme before
                    owner = len(cells) - (2 if cells[-1][0] == "" else 1)
                    cells[owner] = (cells[owner][0] + grapheme, *cells[owner][1:])
                continue
            if len(cells) + wide > width:
                break
            cells.append((grapheme, style, click))
            cells += [("", style, click)] * (wide - 1)
    cells += [(" ", "text", "")] * (width - len(cells))
    return cells


def changed_spans(before: Sequence[Cell], after: Sequence[Cell], gap: int = 4) -> list[tuple[int, int]]:
    """The differences of two lines of the same width, as (start, end). Those less than `gap` cells apart are one."""
    spans: list[tuple[int, int]] = []
    for position, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if spans and position - spans[-1][1] < gap:
            spans[-1] = (spans[-1][0], position + 1)
        else:
            spans.append((position, position + 1))
    return spans
