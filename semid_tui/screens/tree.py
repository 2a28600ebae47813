"""6 Tree: the catalogue as a tree of prefixes, read as it is unfolded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.monitor import Overview
from semid_tui.data.queries import Query, TreeQuery
from semid_tui.render.spans import Line
from semid_tui.render.tree import PAGE, Children, TreeRow, head_lines, row_lines, tree_tsv, unfolded_rows
from semid_tui.widgets.pane import Pane, PanePart
from semid_tui.widgets.scrolled_rows import ScrolledRows


class TreeHead(PanePart["TreePane"]):
    """The active generation and its size."""

    def lines(self, width: int, height: int) -> list[Line]:
        return head_lines(self.pane.overview, width, self.monitor.marker)


class TreeRows(ScrolledRows["TreePane"]):
    """The unfolded tree with a cursor."""

    BINDINGS = [
        Binding("g,home", "move(-1000000)", "First", show=False),
        Binding("G,end", "move(1000000)", "Last", show=False),
        Binding("l,right", "unfold", "Unfold", key_display="l"),
        Binding("h,left", "fold", "Fold", key_display="h"),
        Binding("space", "fold_or_unfold", "Fold or unfold", show=False),
        Binding("enter", "open", "Look up"),
    ]

    def __init__(self, pane: TreePane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.cursor = 0

    def lines(self, width: int, height: int) -> list[Line]:
        rows = self.pane.rows
        if rows:
            self.cursor = max(0, min(self.cursor, len(rows) - 1))
            self.scroll_to_cursor(self.cursor, len(rows), height)
        return row_lines(rows, self.cursor, self.top, width, height, self.monitor.marker)

    def row(self) -> TreeRow | None:
        """The row on the cursor."""
        rows = self.pane.rows
        return rows[self.cursor] if 0 <= self.cursor < len(rows) else None

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(len(self.pane.rows) - 1, self.cursor + by))
        self.redraw()

    def action_unfold(self) -> None:
        row = self.row()
        if row is None:
            return
        if row.more:
            self.pane.read_more()
        elif not row.branch.leaf and not row.unfolded:
            self.pane.unfold(row.branch.prefix)
        else:
            self.action_move(1)

    def action_fold(self) -> None:
        row = self.row()
        if row is None:
            return
        if row.unfolded:
            self.pane.fold(row.branch.prefix)
            return
        for number in range(self.cursor - 1, -1, -1):
            if self.pane.rows[number].branch.prefix == row.parent and not self.pane.rows[number].branch.leaf:
                self.cursor = number
                break
        self.redraw()

    def action_fold_or_unfold(self) -> None:
        row = self.row()
        if row is not None and row.unfolded:
            self.action_fold()
        else:
            self.action_unfold()

    async def action_open(self) -> None:
        row = self.row()
        if row is None:
            return
        if row.more:
            self.pane.read_more()
        else:
            await self.monitor.look_up(row.branch.prefix)

    async def on_click(self, event: events.Click) -> None:
        self.focus()
        number = self.top + event.y
        again = number == self.cursor
        self.cursor = max(0, min(len(self.pane.rows) - 1, number))
        self.redraw()
        if again:
            self.action_fold_or_unfold()


class TreePane(Pane):
    """Reads the children of the unfolded prefixes, and no others."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.unfolded: frozenset[str] = frozenset()
        self.most = PAGE
        self.children_of: Children = {}
        self.rows: list[TreeRow] = []

    def compose(self) -> ComposeResult:
        yield TreeHead(self, id="tree-head")
        yield TreeRows(self, id="tree-rows")

    def queries(self) -> Mapping[str, Query]:
        return {"tree": TreeQuery(self.unfolded | {""}, self.most)}

    def on_overview(self, overview: Overview) -> None:
        self.query_one(TreeHead).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        self.children_of = result
        self._arrange()

    def _arrange(self) -> None:
        widget = self.query_one(TreeRows)
        before = widget.row()
        self.rows = unfolded_rows(self.children_of, self.unfolded)
        if before is not None:
            key = (before.branch.prefix, before.branch.leaf, bool(before.more))
            for number, row in enumerate(self.rows):
                if (row.branch.prefix, row.branch.leaf, bool(row.more)) == key:
                    widget.cursor = number
                    break
        widget.redraw()

    def unfold(self, prefix: str) -> None:
        self.unfolded |= {prefix}
        self._arrange()
        self.subscribe()

    def fold(self, prefix: str) -> None:
        self.unfolded = frozenset(
            unfolded for unfolded in self.unfolded if unfolded != prefix and not unfolded.startswith(f"{prefix}-")
        )
        self._arrange()
        self.subscribe()

    def read_more(self) -> None:
        self.most += PAGE
        self.subscribe()

    def copied_text(self) -> str | None:
        row = self.query_one(TreeRows).row()
        return row.branch.prefix if row else None

    def saved_text(self) -> tuple[str, str]:
        return "tsv", tree_tsv(self.rows)
