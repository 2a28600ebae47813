"""5 Lookup: the ID of an item with its siblings, and the items that match a prefix or a pattern of codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.store.read.search import SearchResult
from semid_tui.data.queries import ItemSearchQuery, Query
from semid_tui.render.lookup import item_lines, matches_tsv, result_lines
from semid_tui.render.spans import Line
from semid_tui.widgets.pane import Pane, PanePart


class LookupResult(PanePart["LookupPane"], can_focus=True):
    """The item, and the list of matches with a cursor."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "move(-10)", show=False),
        Binding("pagedown", "move(10)", show=False),
        Binding("g,home", "move(-100000)", "First", show=False),
        Binding("G,end", "move(100000)", "Last", show=False),
        Binding("enter", "open", "Show"),
    ]

    def __init__(self, pane: LookupPane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.cursor = self.top = 0

    def lines(self, width: int, height: int) -> list[Line]:
        return result_lines(self.pane.found, self.cursor, self.top, width, height, self.monitor.marker)

    def action_move(self, by: int) -> None:
        found = self.pane.found
        if found is None or not found.matches:
            return
        self.cursor = max(0, min(len(found.matches) - 1, self.cursor + by))
        above = len(item_lines(found.item, found.generations, self.size.width, "ascii")) if found.item else 0
        room = max(1, self.size.height - above - 1)
        self.top = max(min(self.top, self.cursor), self.cursor - room + 1)
        self.redraw()

    async def action_open(self) -> None:
        """Show the item on the cursor; where there is none, type."""
        found = self.pane.found
        if found is None or not found.matches:
            self.pane.start_filter()
        else:
            await self.monitor.look_up(found.matches[self.cursor].item_id)

    async def on_click(self, event: events.Click) -> None:
        self.focus()


class LookupPane(Pane):
    """An input, and the result of the search, which follows what is typed.

    Keys are text only while the input has the focus: from `/` to escape or enter.
    """

    BINDINGS = [Binding("escape", "end_typing", "End typing")]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.text = ""
        self.found: SearchResult | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="/ to type an item ID, 12-250-7, 12-250-* or 12-*-7", id="lookup-input")
        yield LookupResult(self, id="lookup-result")

    def main(self) -> LookupResult:
        return self.query_one(LookupResult)

    def queries(self) -> Mapping[str, Query]:
        return {"find": ItemSearchQuery(self.text)} if self.text else {}

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        if self.found is None or self.found.text != result.text:
            self.query_one(LookupResult).cursor = self.query_one(LookupResult).top = 0
        self.found = result
        self.query_one(LookupResult).redraw()

    def on_error(self, slot: str, query: Query, error: str) -> None:
        self.found = None
        super().on_error(slot, query, error)

    def look_up(self, text: str) -> None:
        """Search for a text as if it had been typed."""
        box = self.query_one(Input)
        box.value = text
        box.cursor_position = len(text)
        self.screen.set_focus(self.main())

    def start_filter(self) -> bool:
        box = self.query_one(Input)
        self.screen.set_focus(box)
        box.select_all()
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.text = event.value.strip()
        if not self.text:
            self.found = None
            self.query_one(LookupResult).redraw()
        self.subscribe()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.set_focus(self.query_one(LookupResult))

    def on_key(self, event: events.Key) -> None:
        if event.key == "down" and self.query_one(Input).has_focus:
            event.stop()
            self.screen.set_focus(self.query_one(LookupResult))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "end_typing":
            return self.query_one(Input).has_focus
        return super().check_action(action, parameters)

    def action_end_typing(self) -> None:
        self.screen.set_focus(self.main())

    def copied_text(self) -> str | None:
        if self.found is None:
            return None
        if self.found.item is not None:
            return self.found.item.semantic_id
        cursor = self.query_one(LookupResult).cursor
        return self.found.matches[cursor].semantic_id if self.found.matches else None

    def saved_text(self) -> tuple[str, str]:
        if self.found is None:
            return super().saved_text()
        return "tsv", matches_tsv(self.found)
