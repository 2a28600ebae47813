"""The codes of one layer: its health, one code to a cell, and the code on the cursor. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_daemon.store.read.monitor import Overview, Usage
from semid_daemon.store.read.search import Match
from semid_tui.context import Marker
from semid_tui.render.bars import heat, rank_profile, sparkline
from semid_tui.render.spans import Line, Part, Span, length, line, rule
from semid_tui.render.text import count, fit, percent, tsv
from semid_tui.render.theme import HEATS, layer_style

LABEL_WIDTH = 7  # cells left of the grid


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of codes: a power of two to a row, so that rows begin at round numbers, in cells of 1 to 3 columns."""

    per_row: int
    cell: int

    @classmethod
    def fitting(cls, codes: int, width: int, height: int) -> Grid:
        """The widest cells with which all codes are on the screen; single columns where no cells are narrow enough."""
        room = max(1, width - LABEL_WIDTH)
        for cell in (3, 2, 1):
            per_row = 1 << max(0, (room // cell).bit_length() - 1)
            if -(-codes // per_row) <= height - 2:
                return cls(per_row, cell)
        return cls(per_row, 1)


def head_lines(
    overview: Overview | None, usage: Usage | None, layer: int, width: int, ranked: bool, marker: Marker
) -> list[Line]:
    """The layer's health, its most used code, its rank profile, and perplexity as the catalogue grew."""
    if overview is None or usage is None:
        return [
            rule(width, ("codes", "title"), marker=marker),
            line(("no codebooks yet: they come with the first training", "dim")),
        ]
    active = overview.active
    items = usage.layers[layer]
    used = sum(number > 0 for number in items)
    total = sum(items)
    most = max(range(len(items)), key=items.__getitem__)
    health = next((health for health in overview.layers if health.layer == layer), None)
    style = layer_style(layer)
    generation = f"g{usage.generation}" + ("" if active and active.generation == usage.generation else " (not active)")
    order = "rank order" if ranked else "index order"
    heading: list[Part] = [("codes", "title"), (f" · {generation} · ", "dim")]
    for number in range(len(usage.layers)):
        heading.append(Span(f" L{number} ", "tab-active" if number == layer else "tab", f"pick_layer({number})"))
    heading.append((f" · {order}", "dim"))
    figures = line(
        (f"L{layer}", style),
        (" coverage ", "dim"),
        (percent(used / len(items)), "text" if used == len(items) else "warn"),
        ("  dead ", "dim"),
        (f"{len(items) - used:,}", "bad" if used < len(items) else "text"),
        ("  perplexity ", "dim"),
        (f"{health.perplexity:,.0f}" if health else "-", "text"),
        (f"/{len(items)}", "dim"),
        ("  most used ", "dim"),
        (f"{most}", "text"),
        (f" with {count(items[most])} ({items[most] / total:.1%})" if total else "", "dim"),
    )
    history = [health.perplexity for _, health in (usage.history[layer] if layer < len(usage.history) else ())]
    trend: Line = ()
    if len(history) > 1:
        words = f" trend {history[0]:.0f} → {history[-1]:.0f} "
        room = min(30, max(6, width // 4))
        trend = line((words, "dim"), (sparkline(history, room, marker), style))
    profile = line(*rank_profile(items, max(1, width - length(trend)), marker, style))
    return [rule(width, *heading, marker=marker), figures, (*profile, *trend)]


def grid_lines(
    items: Sequence[int],
    places: Sequence[int],
    grid: Grid,
    top: int,
    height: int,
    marked: Iterable[int | None],
    marker: Marker,
) -> list[Line]:
    """One code to a cell, brighter and higher the more it is used; × for a dead one.

    `items` are counts by code, `places` the codes in the order shown, `top` the first row shown, `marked` the places
    under the cursor and the mouse. The legend follows where there is room.
    """
    fair = sum(items) / len(items)
    marked = set(marked)
    drawn: list[Line] = []
    for start in range(top * grid.per_row, min(len(places), (top + height) * grid.per_row), grid.per_row):
        spans = [Span(f"{start:>{LABEL_WIDTH - 1}} ", "faint")]
        for place in range(start, min(start + grid.per_row, len(places))):
            glyph, style = heat(items[places[place]], fair, marker)
            text = glyph * max(1, grid.cell - 1)
            gap = " " * (grid.cell - len(text))
            if place in marked:
                spans += [Span(text, "cursor"), Span(gap)]
            else:
                spans.append(Span(text + gap, style))
        drawn.append(tuple(spans))
    if len(drawn) < height - 1:
        drawn += [(), legend(marker)]
    return drawn


def legend(marker: Marker) -> Line:
    """The meaning of the glyphs."""
    spans: list[Part] = [(" " * LABEL_WIDTH + "items per code, each step twice the last: ", "faint")]
    for number in range(HEATS):
        glyph, style = heat(1 << number, 2.0**3.5, marker)
        spans.append(Span(glyph, style))
    return line(*spans, ("  dead ", "faint"), heat(0, 1.0, marker))


def detail_lines(
    items: Sequence[int], layer: int, code: int, samples: Sequence[Match] | None, width: int, marker: Marker
) -> list[Line]:
    """One code: its number, count, rank and sample items; `samples` is None while they are being read."""
    rank = sum(number > items[code] for number in items) + 1
    heading = rule(width, (f"code {code}", "title"), (f" of layer {layer}", "dim"), marker=marker)
    if not items[code]:
        return [heading, line(("dead: no item has this code", "bad"))]
    share = items[code] / sum(items)
    drawn = [
        heading,
        line(
            f"{items[code]:,} items",
            (f"  {share:.2%}, {share * len(items):.2f} times a fair share, rank {rank} of {len(items)}", "dim"),
        ),
    ]
    if samples is None:
        return [*drawn, line(("…", "dim"))]
    texts = [f"{escape(match.item_id)} {match.semantic_id}" for match in samples]
    return [*drawn, *(line(fit(text, width)) for text in _packed(texts, width))]


def _packed(texts: Sequence[str], width: int) -> list[str]:
    """Texts side by side, as many to a line as fit."""
    lines: list[str] = []
    for text in texts:
        if lines and cell_len(lines[-1]) + 3 + cell_len(text) <= width:
            lines[-1] += f"   {text}"
        else:
            lines.append(text)
    return lines


def codes_tsv(usage: Usage) -> str:
    """The number of items of every code of every layer."""
    return tsv(
        ("generation", "layer", "code", "items"),
        (
            (usage.generation, layer, code, items)
            for layer, counts in enumerate(usage.layers)
            for code, items in enumerate(counts)
        ),
    )
