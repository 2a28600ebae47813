"""3 Codes: the codes of one layer, and the items of the code on the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.monitor import Overview, Usage
from semid_daemon.store.read.search import Match
from semid_tui.data.queries import Query, SampleItemsQuery, UsageQuery
from semid_tui.render.codes import LABEL_WIDTH, Grid, codes_tsv, detail_lines, grid_lines, head_lines
from semid_tui.render.spans import Line
from semid_tui.widgets.pane import Pane, PanePart


class CodeHead(PanePart["CodesPane"]):
    """The layer as a whole. A click chooses another."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        return head_lines(pane.overview, pane.usage, pane.shown_layer, width, pane.ranked, self.monitor.marker)

    def action_pick_layer(self, layer: int) -> None:
        self.pane.show_layer(layer)


class CodeGrid(PanePart["CodesPane"], can_focus=True):
    """One code to a cell. The cursor and the mouse choose one."""

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

    def __init__(self, pane: CodesPane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.cursor = 0  # a place, not a code
        self.hover: int | None = None
        self._top = 0
        self._grid = Grid(1, 1)

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.usage is None or not height:
            return []
        items, places = pane.usage.layers[pane.shown_layer], pane.places()
        self._grid = Grid.fitting(len(items), width, height)
        self.cursor = min(self.cursor, len(places) - 1)
        row = self.cursor // self._grid.per_row
        self._top = max(min(self._top, row), row - height + 1)
        marked = (self.cursor, self.hover)
        return grid_lines(items, places, self._grid, self._top, height, marked, self.monitor.marker)

    def place_at(self, x: int, y: int) -> int | None:
        """The place under a cell of the widget; None beside the grid."""
        across = (x - LABEL_WIDTH) // self._grid.cell
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


class CodeDetail(PanePart["CodesPane"]):
    """The code on the cursor or under the mouse, and some of its items."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane, code = self.pane, self.pane.code()
        if pane.usage is None or code is None:
            return []
        items = pane.usage.layers[pane.shown_layer]
        return detail_lines(items, pane.shown_layer, code, pane.samples, width, self.monitor.marker)


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
        yield CodeHead(self, id="codes-head")
        yield CodeGrid(self, id="codes-grid")
        yield CodeDetail(self, id="codes-detail")

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

    def show_layer(self, layer: int) -> None:
        self.shown_layer = layer
        self._arrange()
        self.redraw()
        self.code_changed()

    def action_layer(self, by: int) -> None:
        if self.usage is not None:
            self.show_layer((self.shown_layer + by) % len(self.usage.layers))

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
        return "tsv", codes_tsv(self.usage)
