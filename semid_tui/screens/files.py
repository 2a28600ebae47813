"""4 Files: every file of the ledger, paged by keyset, sorted and filtered in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.store.read.monitor import Overview
from semid_daemon.store.read.search import FILE_ORDERS, FileRow, FilesPage, Key
from semid_tui.data.queries import FilesQuery, Query, RetriableFilesQuery
from semid_tui.render.spans import Line, Marker, Part, Span, line, rule
from semid_tui.render.text import clean, clock, count, fit, size, wrapped
from semid_tui.render.theme import STATUS_STYLES
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.filtered_pane import FilteredPane
from semid_tui.widgets.scrolled_rows import ScrolledRows

STATUSES = ("", "pending", "loading", "done", "rejected", "deferred")
_GLYPHS = {"pending": "·", "loading": "▸", "done": "✓", "rejected": "✗", "deferred": "↻"}
_ASCII_GLYPHS = {"pending": ".", "loading": ">", "done": "+", "rejected": "x", "deferred": "~"}
_MOST = 120


def head_lines(overview: Overview, pane: FilesPane, width: int, marker: Marker) -> list[Line]:
    """Files by status, to be chosen among, and how they are sorted and filtered."""
    page = pane.page
    heading: list[Part] = [("files", "title"), (f" · by {pane.order}", "dim")]
    if pane.text:
        heading.append((f" · with “{clean(pane.text)}”", "accent"))
    if page is not None:
        heading.append((f" · {page.total:,} shown" if pane.text or pane.status else f" · {page.total:,}", "dim"))
    spans: list[Span] = []
    total = sum(overview.file_counts.values())
    for status in STATUSES:
        number = overview.file_counts.get(status, 0) if status else total
        style = "tab-active" if status == pane.status else STATUS_STYLES.get(status, "text") if number else "dim"
        spans += [
            Span(f" {status or 'all'} {count(number)} ", style, f"pick({status!r})"),
            Span(" " if width > 70 else ""),
        ]
    return [rule(width, *heading, marker=marker), tuple(spans), column_line(width)]


def column_line(width: int) -> Line:
    """The heads of the columns."""
    size_head = f"{'size':>9} " if width >= 100 else ""
    heads = f"  {'status':<9}{'file':<{_name_width(width)}} {'rows':>13} {'out':>6} try{size_head}{'when':>12}"
    return line((heads + ("  why" if width >= 100 else ""), "faint"))


def _fixed_width(width: int) -> int:
    return 2 + 9 + 1 + 13 + 1 + 6 + 4 + (10 if width >= 100 else 0) + 12


def _name_width(width: int) -> int:
    return max(10, min(48, (width - _fixed_width(width)) // (2 if width >= 100 else 1)))


def file_line(file: FileRow, width: int, selected: bool, marker: Marker) -> Line:
    """One file: status, name, rows, what was left out, attempts, size, when, why."""
    glyph = (_ASCII_GLYPHS if marker == "ascii" else _GLYPHS)[file.status]
    done = f"{file.rows_done:,}/{file.rows:,}" if file.rows is not None and file.status == "loading" else ""
    rows = done or (f"{file.rows:,}" if file.rows is not None else "-")
    left_out = f"-{count(file.rows_rejected)}" if file.rows_rejected else ""
    when = clock(file.finished_at or file.seen_at)
    fixed, name_width = _fixed_width(width), _name_width(width)
    base = "selected" if selected else ""
    reason_width = width - fixed - name_width
    spans: list[Part] = [
        (f"{glyph} {file.status:<9}", base or STATUS_STYLES[file.status]),
        (fit(clean(file.name), name_width, keep_end=True), base or "text"),
        (f" {rows:>13}", base or "text"),
        (f" {left_out:>6}", base or "warn"),
        (f" {file.attempts if file.attempts > 1 else '':>2} ", base or "dim"),
    ]
    if width >= 100:
        spans.append((f"{size(file.size_bytes):>9} ", base or "dim"))
    spans.append((f"{when:>11} ", base or "dim"))
    if reason_width > 0:
        spans.append((fit(clean(file.reason or ""), reason_width), base or "dim"))
    return line(*spans)


def detail_lines(file: FileRow | None, width: int, height: int, marker: Marker) -> list[Line]:
    """All that is known of the file on the cursor."""
    if file is None:
        return [rule(width, marker=marker), line(("no file", "dim"))]
    figures = f"{file.rows_done:,} of {file.rows:,} rows" if file.rows is not None else "rows not counted yet"
    words = [figures, size(file.size_bytes), f"{file.attempts} attempt{'' if file.attempts == 1 else 's'}"]
    words += [f"{file.rows_kept:,} had an ID"] if file.rows_kept else []
    words += [f"{file.rows_rejected:,} left out"] if file.rows_rejected else []
    words += [f"seen {clock(file.seen_at)}"]
    words += [f"finished {clock(file.finished_at)}"] if file.finished_at else []
    words += [f"again {clock(file.retry_at)}"] if file.retry_at else []
    drawn = [
        rule(
            width,
            (fit(clean(file.name), max(4, width - 16), keep_end=True).rstrip(), "title"),
            (f" {file.status}", STATUS_STYLES[file.status]),
            marker=marker,
        ),
        line((", ".join(words), "dim")),
    ]
    if file.reason:
        drawn += [line((part, "warn")) for part in wrapped(clean(file.reason), width)]
    return drawn[:height]


class FilesHead(CellWidget):
    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, FilesPane)
        return head_lines(pane.overview, pane, width, self.monitor.marker) if pane.overview else []

    def action_pick(self, status: str) -> None:
        pane = self.parent
        assert isinstance(pane, FilesPane)
        pane.show_status(status)


class FilesTable(ScrolledRows):
    """The window of the page around the cursor."""

    BINDINGS = [
        Binding("ctrl+b", "page(-1)", "Page up", show=False),
        Binding("ctrl+f", "page(1)", "Page down", show=False),
        Binding("g,home", "edge(False)", "First", show=False),
        Binding("G,end", "edge(True)", "Last", show=False),
    ]

    @property
    def pane(self) -> FilesPane:
        assert isinstance(self.parent, FilesPane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.page is None:
            return [line(("reading…", "dim"))]
        rows = pane.page.rows
        if not rows:
            return [line((pane.nothing(), "dim"))]
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


class FilesDetail(CellWidget):
    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, FilesPane)
        return detail_lines(pane.file(), width, height, self.monitor.marker)


class FilesPane(FilteredPane):
    """A window into the ledger; the anchor is the key of a row, so the cost does not grow with its place."""

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
        yield FilesHead(id="files-head")
        yield FilesTable(id="files-table")
        yield FilesDetail(id="files-detail")
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

    def nothing(self) -> str:
        if self.text or self.status:
            return "no such file: [ ] chooses a status, esc clears the filter"
        return "no files yet: drop some into " + clean(str(self.monitor.config.drop_dir))

    def file(self) -> FileRow | None:
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

    def _begin_anew(self) -> None:
        self.around, self.from_end, self._jumped, self.retriable = None, False, True, ()
        self.subscribe(again=True)

    def show_status(self, status: str) -> None:
        self.status = status
        self._begin_anew()

    def action_status(self, by: int) -> None:
        self.show_status(STATUSES[(STATUSES.index(self.status) + by) % len(STATUSES)])

    def action_order(self) -> None:
        orders = list(FILE_ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self._begin_anew()

    def action_follow(self) -> None:
        self.order = next(iter(FILE_ORDERS))
        self._begin_anew()

    def filter_changed(self) -> None:
        self._begin_anew()

    # -- taking away, asking -----------------------------------------------------------------------

    def copied_text(self) -> str | None:
        file = self.file()
        return file.name if file else None

    def saved_text(self) -> tuple[str, str]:
        if self.page is None:
            return super().saved_text()
        names = [
            "name",
            "status",
            "rows",
            "rows_done",
            "rows_rejected",
            "rows_kept",
            "attempts",
            "size_bytes",
            "seen_at",
            "finished_at",
            "reason",
        ]
        rows = ["\t".join(clean(str(getattr(row, name) or "")) for name in names) for row in self.page.rows]
        return "tsv", "\n".join(["\t".join(names), *rows]) + "\n"

    def retry_offers(self) -> list[tuple[str, dict[str, Any]]]:
        offers: list[tuple[str, dict[str, Any]]] = []
        file = self.file()
        if file is not None and file.status in ("rejected", "deferred"):
            offers.append((file.name, {"files": [file.name]}))
        if self.page is not None and (self.text or self.status in ("rejected", "deferred")):
            names = list(self.retriable)
            if len(names) > 1:
                offers.append((f"the {len(names):,} filtered files", {"files": names}))
        if self.overview and (self.overview.file_counts.get("rejected") or self.overview.file_counts.get("deferred")):
            offers.append(("all deferred and rejected files", {"all": True}))
        return offers
