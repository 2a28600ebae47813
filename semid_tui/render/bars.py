"""Bars, sparklines, the rank profile and the grid of codes. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from semid_tui.context import Marker
from semid_tui.render.spans import Span
from semid_tui.render.theme import HEATS

EIGHTHS = " ▁▂▃▄▅▆▇█"
ASCII_LEVELS = " .:-=+*%#"
DEAD = "×"


def dead_glyph(marker: Marker) -> str:
    return "x" if marker == "ascii" else DEAD


def level(share: float, marker: Marker) -> str:
    """A share of 0…1 as one glyph; nothing only for nothing."""
    glyphs = ASCII_LEVELS if marker == "ascii" else EIGHTHS
    if share <= 0:
        return glyphs[0]
    number: int = math.ceil(share * 8 - 1e-9)
    return glyphs[max(1, min(8, number))]


def bar(share: float, width: int, marker: Marker, style: str = "bar") -> tuple[Span, Span]:
    """A bar, `share` of it full, to half a cell."""
    halves = max(0, min(2 * width, round(share * 2 * width)))
    if marker == "ascii":
        return Span("=" * (halves // 2), style), Span("-" * (width - halves // 2), "track")
    full = "━" * (halves // 2) + "╸" * (halves % 2)
    return Span(full, style), Span("━" * (width - len(full)), "track")


def blocks(share: float, width: int, marker: Marker) -> str:
    """A bar of eighths of a cell, padded to its width."""
    if marker == "ascii":
        return ("#" * max(round(share * width), int(share > 0))).ljust(width)
    eighths = max(round(share * width * 8), int(share > 0))
    full, rest = divmod(min(eighths, width * 8), 8)
    return ("█" * full + "▏▎▍▌▋▊▉"[max(rest - 1, 0) : rest]).ljust(width)


def sparkline(values: Sequence[float], width: int, marker: Marker) -> str:
    """The last values, one to a cell, between their least and their greatest."""
    if not values or width < 1:
        return ""
    if len(values) > width:
        # One value of each stretch: the last.
        values = [values[(number + 1) * len(values) // width - 1] for number in range(width)]
    low, high = min(values), max(values)
    return "".join(
        level((value - low) / (high - low) * 0.875 + 0.125 if high > low else 0.5, marker) for value in values
    )


def rank_profile(usage: Sequence[int], width: int, marker: Marker, style: str) -> tuple[Span, ...]:
    """Codes sorted by use, from the most used; the dead at the end in their own colour and glyph.

    Heights are on a log scale from one item to the most used code. A single dead code takes a cell: folding
    codes by their mean would hide it.
    """
    if not usage or width < 1:
        return ()
    ranked = sorted(usage, reverse=True)
    dead = sum(items == 0 for items in ranked)
    dead_cells = min(width, max(round(width * dead / len(ranked)), int(dead > 0)))
    alive, cells = ranked[: len(ranked) - dead], width - dead_cells
    if alive and not cells:
        dead_cells, cells = width - 1, 1
    top = math.log1p(alive[0]) if alive else 1.0
    glyphs = []
    for number in range(cells):
        inside = alive[
            number * len(alive) // cells : max((number + 1) * len(alive) // cells, number * len(alive) // cells + 1)
        ]
        glyphs.append(level(math.log1p(sum(inside) / len(inside)) / top, marker))
    return Span("".join(glyphs), style), Span(dead_glyph(marker) * dead_cells, "dead")


def heat(items: int, fair: float, marker: Marker) -> tuple[str, str]:
    """A code's glyph and style: its use against a fair share, each level twice the one below. × for a dead one."""
    if items == 0:
        return dead_glyph(marker), "dead"
    number = max(0, min(HEATS - 1, math.floor(math.log2(items / max(fair, 1e-9)) + 4.5)))
    glyphs = ASCII_LEVELS if marker == "ascii" else EIGHTHS
    return glyphs[number + 1], f"heat-{number}"
