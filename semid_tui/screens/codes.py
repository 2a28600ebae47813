"""3 Codes: one layer at a time, one code to a cell; on the cursor what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.monitor import Overview, Usage
from semid_daemon.store.read.search import Match
from semid_tui.data.queries import Query, SampleItemsQuery, UsageQuery
from semid_tui.render.bars import heat, rank_profile, sparkline
from semid_tui.render.spans import Line, Marker, Part, Span, length, line, rule
from semid_tui.render.text import clean, count, fit, percent
from semid_tui.render.theme import HEATS, layer_style
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.pane import Pane

_LABEL = 7  # cells left of the grid


@dataclass(frozen=True, slots=True)
class Grid:
    """How codes are laid out: a power of two to a row, so that rows begin at round numbers; cells of 1 to 3 columns."""

    per_row: int
    cell: int

    @classmethod
    def fitting(cls, codes: int, width: int, height: int) -> Grid:
        """The widest cells with which all codes are on the screen; single columns where they are not in any case."""
        room = max(1, width - _LABEL)
        for cell in (3, 2, 1):
            per_row = 1 << max(0, (room // cell).bit_length() - 1)
            if -(-codes // per_row) <= height - 2:
                return cls(per_row, cell)
        return cls(per_row, 1)


def head_lines(overview: Overview, usage: Usage, layer: int, width: int, ranked: bool, marker: Marker) -> list[Line]:
    """The layer's health, its most used code, its rank profile, and perplexity as the catalogue grew."""
    active = overview.active
    items = usage.layers[layer]
    used = sum(each > 0 for each in items)
    total = sum(items)
    most = max(range(len(items)), key=items.__getitem__)
    health = next((each for each in overview.health if each.layer == layer), None)
    style = layer_style(layer)
    generation = f"g{usage.generation}" + ("" if active and active.generation == usage.generation else " (not active)")
    order = "rank order" if ranked else "index order"
    heading: list[Part] = [("codes", "title"), (f" · {generation} · ", "dim")]
    for each in range(len(usage.layers)):
        heading.append(Span(f" L{each} ", "tab-active" if each == layer else "tab", f"pick_layer({each})"))
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
    history = [each.perplexity for _, each in (usage.history[layer] if layer < len(usage.history) else ())]
    trend: Line = ()
    if len(history) > 1:
        words = f" trend {history[0]:.0f} → {history[-1]:.0f} "
        room = min(30, max(6, width // 4))
        trend = line((words, "dim"), (sparkline(history, room, marker), style))
    profile = line(*rank_profile(items, max(1, width - length(trend)), marker, style))
    return [rule(width, *heading, marker=marker), figures, (*profile, *trend)]


class CodeHead(CellWidget):
    """The layer as a whole."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, CodesPane)
        if pane.overview is None or pane.usage is None:
            return [
                rule(width, ("codes", "title"), marker=self.monitor.marker),
                line(("no codebooks yet: they come with the first training", "dim")),
            ]
        return head_lines(pane.overview, pane.usage, pane.shown_layer, width, pane.ranked, self.monitor.marker)

    def action_pick_layer(self, layer: int) -> None:
        pane = self.parent
        assert isinstance(pane, CodesPane)
        pane.turn_to(layer)


class CodeGrid(CellWidget, can_focus=True):
    """One code to a cell, brighter and higher the more it is used; × for a dead one."""

    BINDINGS = [
        Binding("up,k", "move(0,-1)", "Move", key_display="arrows", show=False),
        Binding("down,j", "move(0,1)", show=False),
        Binding("left,h", "move(-1,0)", show=False),
        Binding("right,l", "move(1,0)", show=False),
        Binding("pageup", "move(0,-10)", show=False),
        Binding("pagedown", "move(0,10)", show=False),
        Binding("g,home", "edge(0)", "First", show=False),
        Binding("G,end", "edge(1)", "Last", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.cursor = 0  # a place, not a code
        self.hover: int | None = None
        self._top = 0
        self._grid = Grid(1, 1)

    @property
    def pane(self) -> CodesPane:
        assert isinstance(self.parent, CodesPane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        pane, marker = self.pane, self.monitor.marker
        if pane.usage is None or not height:
            return []
        items = pane.usage.layers[pane.shown_layer]
        places = pane.places()
        fair = sum(items) / len(items)
        grid = self._grid = Grid.fitting(len(items), width, height)
        per_row = grid.per_row
        self.cursor = min(self.cursor, len(places) - 1)
        row = self.cursor // per_row
        self._top = max(min(self._top, row), row - height + 1)
        drawn: list[Line] = []
        for start in range(self._top * per_row, min(len(places), (self._top + height) * per_row), per_row):
            spans = [Span(f"{start:>{_LABEL - 1}} ", "faint")]
            for place in range(start, min(start + per_row, len(places))):
                glyph, style = heat(items[places[place]], fair, marker)
                text = glyph * max(1, grid.cell - 1)
                gap = " " * (grid.cell - len(text))
                if place in (self.cursor, self.hover):
                    spans += [Span(text, "cursor"), Span(gap)]
                else:
                    spans.append(Span(text + gap, style))
            drawn.append(tuple(spans))
        if len(drawn) < height - 1:
            drawn += [(), legend(marker)]
        return drawn

    def place_at(self, x: int, y: int) -> int | None:
        across = (x - _LABEL) // self._grid.cell
        place = (self._top + y) * self._grid.per_row + across
        inside = 0 <= across < self._grid.per_row and place < len(self.pane.places())
        return place if inside else None

    def action_move(self, across: int, down: int) -> None:
        self._move_to(self.cursor + across + down * self._grid.per_row)

    def action_edge(self, end: int) -> None:
        self._move_to(len(self.pane.places()) - 1 if end else 0)

    def _move_to(self, place: int) -> None:
        self.cursor = max(0, min(place, len(self.pane.places()) - 1))
        self.hover = None
        self.pane.code_changed()

    async def on_click(self, event: events.Click) -> None:
        place = self.place_at(event.x, event.y)
        if place is not None:
            self._move_to(place)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        place = self.place_at(event.x, event.y)
        if place != self.hover:
            self.hover = place
            self.pane.code_changed()

    def on_leave(self) -> None:
        if self.hover is not None:
            self.hover = None
            self.pane.code_changed()

    def on_mouse_scroll_down(self) -> None:
        self.action_move(0, 3)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(0, -3)


def legend(marker: Marker) -> Line:
    """What the glyphs mean."""
    spans: list[Part] = [(" " * _LABEL + "items per code, each step twice the last: ", "faint")]
    for number in range(HEATS):
        glyph, style = heat(1 << number, 2.0**3.5, marker)
        spans.append(Span(glyph, style))
    return line(*spans, ("  dead ", "faint"), heat(0, 1.0, marker))


class CodeDetail(CellWidget):
    """The code on the cursor or under the mouse: number, count, rank, some of its items."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, CodesPane)
        code = pane.code()
        if pane.usage is None or code is None:
            return []
        items = pane.usage.layers[pane.shown_layer]
        total = sum(items)
        rank = sum(each > items[code] for each in items) + 1
        heading = rule(
            width,
            (f"code {code}", "title"),
            (f" of layer {pane.shown_layer}", "dim"),
            marker=self.monitor.marker,
        )
        if not items[code]:
            return [heading, line(("dead: no item has this code", "bad"))]
        share = items[code] / total
        drawn = [
            heading,
            line(
                f"{items[code]:,} items",
                (f"  {share:.2%}, {share * len(items):.2f} times a fair share, rank {rank} of {len(items)}", "dim"),
            ),
        ]
        if pane.samples is None:
            return [*drawn, line(("…", "dim"))]
        texts = [f"{clean(match.item_id)} {match.semantic_id}" for match in pane.samples]
        return [*drawn, *(line(fit(text, width)) for text in _packed(texts, width))]


def _packed(texts: list[str], width: int) -> list[str]:
    """Texts side by side, as many to a line as fit."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 3 + len(text) <= width:
            lines[-1] += f"   {text}"
        else:
            lines.append(text)
    return lines


class CodesPane(Pane):
    """The codebooks, code by code."""

    BINDINGS = [
        Binding("left_square_bracket", "layer(-1)", "Layer", key_display="[ ]"),
        Binding("right_square_bracket", "layer(1)", show=False),
        Binding("o", "order", "Rank/index"),
        Binding("enter", "open", "Look up"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.usage: Usage | None = None
        self.shown_layer = 0
        self.ranked = False
        self.samples: tuple[Match, ...] | None = None
        self._places: tuple[int, ...] = ()

    def compose(self) -> ComposeResult:
        yield CodeHead(id="codes-head")
        yield CodeGrid(id="codes-grid")
        yield CodeDetail(id="codes-detail")

    def queries(self) -> Mapping[str, Query]:
        queries: dict[str, Query] = {"usage": UsageQuery()}
        code = self.code()
        if self.usage is not None and code is not None and self.usage.layers[self.shown_layer][code]:
            queries["samples"] = SampleItemsQuery(self.usage.generation, self.shown_layer, code, len(self.usage.layers))
        return queries

    def places(self) -> tuple[int, ...]:
        """The codes in the order in which they are shown."""
        return self._places

    def code(self) -> int | None:
        """The code under the mouse or the cursor."""
        grid = self.query_one(CodeGrid)
        place = grid.hover if grid.hover is not None else grid.cursor
        return self._places[place] if place < len(self._places) else None

    def _arrange(self) -> None:
        if self.usage is None:
            self._places = ()
            return
        items = self.usage.layers[self.shown_layer]
        order = range(len(items))
        self._places = tuple(sorted(order, key=lambda code: (-items[code], code)) if self.ranked else order)

    def on_overview(self, overview: Overview) -> None:
        self.query_one(CodeHead).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        if slot == "samples":
            self.samples = result
            self.query_one(CodeDetail).redraw()
            return
        first = self.usage is None
        self.usage = result
        if result is not None:
            self.shown_layer = min(self.shown_layer, len(result.layers) - 1)
        self._arrange()
        self.redraw()
        if first:
            self.subscribe()

    def on_error(self, slot: str, query: Query, error: str) -> None:
        self.samples = ()
        self.query_one(CodeDetail).redraw()

    def code_changed(self) -> None:
        self.samples = None
        self.query_one(CodeGrid).redraw()
        self.query_one(CodeDetail).redraw()
        self.subscribe()

    def turn_to(self, layer: int) -> None:
        self.shown_layer = layer
        self._arrange()
        self.redraw()
        self.code_changed()

    def action_layer(self, by: int) -> None:
        if self.usage is not None:
            self.turn_to((self.shown_layer + by) % len(self.usage.layers))

    def action_order(self) -> None:
        code = self.code()
        self.ranked = not self.ranked
        self._arrange()
        if code is not None:
            self.query_one(CodeGrid).cursor = self._places.index(code)
        self.redraw()

    async def action_open(self) -> None:
        code = self.code()
        if self.usage is not None and code is not None:
            parts = ["*"] * len(self.usage.layers)
            parts[self.shown_layer] = str(code)
            await self.monitor.look_up("-".join(parts))

    def copied_text(self) -> str | None:
        code = self.code()
        return None if code is None else str(code)

    def saved_text(self) -> tuple[str, str]:
        if self.usage is None:
            return super().saved_text()
        rows = [
            f"{self.usage.generation}\t{layer}\t{code}\t{items}"
            for layer, usage in enumerate(self.usage.layers)
            for code, items in enumerate(usage)
        ]
        return "tsv", "\n".join(["generation\tlayer\tcode\titems", *rows]) + "\n"
