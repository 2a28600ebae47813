"""6 Tree: the catalogue as a tree of prefixes, read as it is unfolded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.monitor import Overview
from semid_daemon.store.read.search import Branch
from semid_tui.data.queries import Query, TreeQuery
from semid_tui.render.bars import blocks
from semid_tui.render.spans import Line, Part, line, rule
from semid_tui.render.text import clean, fit
from semid_tui.render.theme import layer_style
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.pane import Pane
from semid_tui.widgets.scrolled_rows import ScrolledRows

_PAGE = 500

Children = Mapping[str, tuple[tuple[Branch, ...], int]]


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A line of the unfolded tree. `share` is of the fullest sibling; `more` children of `branch` are not shown."""

    branch: Branch
    depth: int
    share: float
    unfolded: bool
    parent: str
    more: int = 0


def unfolded_rows(children: Children, unfolded: frozenset[str], prefix: str = "", depth: int = 0) -> list[TreeRow]:
    """The lines of the tree, as far as it is unfolded and read."""
    branches, there = children.get(prefix, ((), 0))
    fullest = max((branch.items for branch in branches), default=1)
    rows: list[TreeRow] = []
    for branch in branches:
        is_unfolded = not branch.leaf and branch.prefix in unfolded
        rows.append(TreeRow(branch, depth, branch.items / fullest, is_unfolded, prefix))
        if is_unfolded:
            rows += unfolded_rows(children, unfolded, branch.prefix, depth + 1)
    if there > len(branches) > 0:
        rows.append(TreeRow(Branch(prefix, 0), depth, 0.0, False, prefix, more=there - len(branches)))
    return rows


class TreeHead(CellWidget):
    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, TreePane)
        active = pane.overview.active if pane.overview else None
        words = f" · g{active.generation} · {active.items:,} items in {active.distinct_ids:,} IDs" if active else ""
        return [rule(width, ("tree", "title"), (words, "dim"), marker=self.monitor.marker)]


class TreeRows(ScrolledRows):
    """The unfolded tree, with a bar against the fullest sibling."""

    BINDINGS = [
        Binding("g,home", "move(-1000000)", "First", show=False),
        Binding("G,end", "move(1000000)", "Last", show=False),
        Binding("l,right", "unfold", "Unfold", key_display="l"),
        Binding("h,left", "fold", "Fold", key_display="h"),
        Binding("space", "fold_or_unfold", "Fold or unfold", show=False),
        Binding("enter", "open", "Look up"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.cursor = 0

    @property
    def pane(self) -> TreePane:
        assert isinstance(self.parent, TreePane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        rows, marker = self.pane.rows, self.monitor.marker
        if not rows:
            return [line(("no items yet", "dim"))]
        self.cursor = max(0, min(self.cursor, len(rows) - 1))
        self.scroll_to_cursor(self.cursor, len(rows), height)
        closed, opened, leaf = (">", "v", "-") if marker == "ascii" else ("▸", "▾", "·")
        drawn = []
        bar_width = max(8, min(40, width // 3))
        for number, row in enumerate(rows[self.top : self.top + height], self.top):
            at = number == self.cursor
            indent = "  " * row.depth
            if row.more:
                text = f"{indent}  more… {row.more:,} ({_PAGE} at a time)"
                drawn.append(line((fit(text, width), "selected" if at else "accent")))
                continue
            sign = leaf if row.branch.leaf else opened if row.unfolded else closed
            name = f"{indent}{sign} {clean(row.branch.prefix)}"
            style = "text" if row.branch.leaf else layer_style(row.depth)
            name_width = max(10, width - bar_width - 14)
            parts: list[Part] = [(fit(name, name_width), "selected" if at else style)]
            if not row.branch.leaf:
                parts += [(f" {row.branch.items:>11,} ", "selected" if at else "text")]
                parts += [(blocks(row.share, bar_width, marker), style if not at else "bar")]
            drawn.append(line(*parts))
        return drawn

    def row(self) -> TreeRow | None:
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
        at = self.top + event.y
        again = at == self.cursor
        self.cursor = max(0, min(len(self.pane.rows) - 1, at))
        self.redraw()
        if again:
            self.action_fold_or_unfold()


class TreePane(Pane):
    """Only what is unfolded is read."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.unfolded: frozenset[str] = frozenset()
        self.most = _PAGE
        self.children_of: Children = {}
        self.rows: list[TreeRow] = []

    def compose(self) -> ComposeResult:
        yield TreeHead(id="tree-head")
        yield TreeRows(id="tree-rows")

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
            each for each in self.unfolded if each != prefix and not each.startswith(f"{prefix}-")
        )
        self._arrange()
        self.subscribe()

    def read_more(self) -> None:
        self.most += _PAGE
        self.subscribe()

    def copied_text(self) -> str | None:
        row = self.query_one(TreeRows).row()
        return row.branch.prefix if row else None

    def saved_text(self) -> tuple[str, str]:
        rows = [f"{clean(row.branch.prefix)}\t{row.branch.items}" for row in self.rows if not row.more]
        return "tsv", "\n".join(["prefix\titems", *rows]) + "\n"
