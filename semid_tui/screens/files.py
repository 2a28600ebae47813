"""4 Files: every file of the ledger, paged by keyset, sorted and filtered in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.base.text import escape
from semid_daemon.store.read.files import FILE_ORDERS, FileRow, FilesPage, Key
from semid_daemon.store.read.monitor import Overview
from semid_tui.data.queries import FilesQuery, Query, RetriableFilesQuery
from semid_tui.render.files import STATUSES, detail_lines, file_line, files_tsv, head_lines
from semid_tui.render.spans import Line, line
from semid_tui.widgets.filtered_pane import FilteredPane
from semid_tui.widgets.pane import PanePart
from semid_tui.widgets.scrolled_rows import ScrolledRows

_MOST = 120


class FilesHead(PanePart["FilesPane"]):
    """Files by status, the filter, and the heads of the columns. A click chooses a status."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.overview is None:
            return []
        found = pane.page.total if pane.page else None
        counts = pane.overview.files
        return head_lines(counts, found, pane.order, pane.status, pane.text, width, self.monitor.marker)

    def action_pick(self, status: str) -> None:
        self.pane.show_status(status)


class FilesTable(ScrolledRows["FilesPane"]):
    """The window of the page around the cursor."""

    BINDINGS = [
        Binding("ctrl+b", "page(-1)", "Page up", show=False),
        Binding("ctrl+f", "page(1)", "Page down", show=False),
        Binding("g,home", "edge(False)", "First", show=False),
        Binding("G,end", "edge(True)", "Last", show=False),
    ]

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.page is None:
            return [line(("reading…", "dim"))]
        rows = pane.page.rows
        if not rows:
            return [line((pane.empty_text(), "dim"))]
        self.scroll_to_cursor(pane.cursor, len(rows), height)
        return [
            file_line(row, width, number == pane.cursor, self.monitor.marker)
            for number, row in enumerate(rows[self.top : self.top + height], self.top)
        ]

    def action_move(self, by: int) -> None:
        self.pane.move(by)

    def action_edge(self, end: bool) -> None:
        self.pane.go_to_edge(end)

    async def on_click(self, event: events.Click) -> None:
        self.focus()
        self.pane.move(self.top + event.y - self.pane.cursor)


class FilesDetail(PanePart["FilesPane"]):
    """The file on the cursor."""

    def lines(self, width: int, height: int) -> list[Line]:
        return detail_lines(self.pane.file(), width, height, self.monitor.marker)


class FilesPane(FilteredPane):
    """A window into the ledger around the key of a row; its cost does not grow with the place of the row."""

    BINDINGS = [
        Binding("o", "order", "Order"),
        Binding("left_square_bracket", "status(-1)", "Status", key_display="[ ]"),
        Binding("right_square_bracket", "status(1)", show=False),
        Binding("space", "follow", "Follow"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.order = next(iter(FILE_ORDERS))
        self.status = ""
        self.around: Key | None = None
        self.from_end = False
        self.page: FilesPage | None = None
        self.cursor = 0
        self.retriable: tuple[str, ...] = ()
        self._jumped = False  # the cursor goes where the next page says

    def compose(self) -> ComposeResult:
        yield FilesHead(self, id="files-head")
        yield FilesTable(self, id="files-table")
        yield FilesDetail(self, id="files-detail")
        yield Input(placeholder="part of a name or of a reason; enter keeps it, esc clears it")

    def main(self) -> FilesTable:
        return self.query_one(FilesTable)

    def queries(self) -> Mapping[str, Query]:
        queries: dict[str, Query] = {
            "files": FilesQuery(self.order, self.status, self.text, self.around, self.from_end, _MOST)
        }
        if self.text or self.status in ("rejected", "deferred"):
            queries["retriable"] = RetriableFilesQuery(self.status, self.text)
        return queries

    def on_overview(self, overview: Overview) -> None:
        self.query_one(FilesHead).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        if slot == "retriable":
            self.retriable = result
            return
        before = self.file()
        self.page = result
        places = {row.id: number for number, row in enumerate(result.rows)}
        following = self.around is None and not self.from_end and self.cursor == 0
        following, self._jumped = following or self._jumped, False
        if before is not None and before.id in places and not following:
            moved = places[before.id] - self.cursor
            self.cursor = places[before.id]
            self.main().top += moved
        else:
            self.cursor = len(result.rows) - 1 if self.from_end else min(result.at, max(0, len(result.rows) - 1))
        self.redraw()

    def on_error(self, slot: str, query: Query, error: str) -> None:
        if slot == "retriable":
            self.retriable = ()
            return
        self.page = FilesPage((), 0, 0)
        super().on_error(slot, query, error)
        self.redraw()

    def empty_text(self) -> str:
        """The words in place of rows."""
        if self.text or self.status:
            return "no such file: [ ] chooses a status, esc clears the filter"
        return "no files yet: drop some into " + escape(str(self.monitor.config.drop_dir))

    def file(self) -> FileRow | None:
        """The file on the cursor."""
        if self.page is None or not 0 <= self.cursor < len(self.page.rows):
            return None
        return self.page.rows[self.cursor]

    def move(self, by: int) -> None:
        if self.page is None or not self.page.rows:
            return
        last = len(self.page.rows) - 1
        self.cursor = max(0, min(last, self.cursor + by))
        margin = self.main().size.height
        rows = self.page.rows
        # Near an end of what was read: read around the cursor.
        if (self.cursor < margin and self.around is not None) or (self.cursor > last - margin and last >= _MOST - 1):
            key = rows[self.cursor].key
            if key != self.around:
                self.around, self.from_end = key, False
                self.subscribe()
        self.redraw()

    def go_to_edge(self, end: bool) -> None:
        self.around, self.from_end = None, end
        self._jumped = True
        self.subscribe(again=True)

    def _restart(self) -> None:
        self.around, self.from_end, self._jumped, self.retriable = None, False, True, ()
        self.subscribe(again=True)

    def show_status(self, status: str) -> None:
        self.status = status
        self._restart()

    def action_status(self, by: int) -> None:
        self.show_status(STATUSES[(STATUSES.index(self.status) + by) % len(STATUSES)])

    def action_order(self) -> None:
        orders = list(FILE_ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self._restart()

    def action_follow(self) -> None:
        self.order = next(iter(FILE_ORDERS))
        self._restart()

    def filter_changed(self) -> None:
        self._restart()

    # -- copying, saving, retrying -----------------------------------------------------------------

    def copied_text(self) -> str | None:
        file = self.file()
        return file.name if file else None

    def saved_text(self) -> tuple[str, str]:
        if self.page is None:
            return super().saved_text()
        return "tsv", files_tsv(self.page.rows)

    def retry_offers(self) -> list[tuple[str, dict[str, Any]]]:
        offers: list[tuple[str, dict[str, Any]]] = []
        file = self.file()
        if file is not None and file.status in ("rejected", "deferred"):
            offers.append((file.name, {"files": [file.name]}))
        if self.page is not None and (self.text or self.status in ("rejected", "deferred")):
            names = list(self.retriable)
            if len(names) > 1:
                offers.append((f"the {len(names):,} filtered files", {"files": names}))
        if self.overview and (self.overview.files.get("rejected") or self.overview.files.get("deferred")):
            offers.append(("all deferred and rejected files", {"all": True}))
        return offers
