"""The ledger's files: counts by status, a row of each, and the file on the cursor. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semid_daemon.base.text import escape
from semid_daemon.store.read.files import FileRow
from semid_tui.context import Marker
from semid_tui.render.spans import Line, Part, Span, line, rule
from semid_tui.render.text import clock, count, fit, size, tsv, wrap
from semid_tui.render.theme import STATUS_STYLES

STATUSES = ("", "pending", "loading", "done", "rejected", "deferred")
_GLYPHS = {"pending": "·", "loading": "▸", "done": "✓", "rejected": "✗", "deferred": "↻"}
_ASCII_GLYPHS = {"pending": ".", "loading": ">", "done": "+", "rejected": "x", "deferred": "~"}
_TSV_COLUMNS = (
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
)


def head_lines(
    counts: Mapping[str, int], found: int | None, order: str, status: str, text: str, width: int, marker: Marker
) -> list[Line]:
    """The order and the filter, the number of files of every status, and the heads of the columns.

    `counts` are all files by status, `found` those of the filter; None before they are read.
    """
    heading: list[Part] = [("files", "title"), (f" · by {order}", "dim")]
    if text:
        heading.append((f" · with “{escape(text)}”", "accent"))
    if found is not None:
        heading.append((f" · {found:,} shown" if text or status else f" · {found:,}", "dim"))
    spans: list[Span] = []
    total = sum(counts.values())
    for name in STATUSES:
        number = counts.get(name, 0) if name else total
        style = "tab-active" if name == status else STATUS_STYLES.get(name, "text") if number else "dim"
        spans += [
            Span(f" {name or 'all'} {count(number)} ", style, f"pick({name!r})"),
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
    """One file: status, name, rows, rows left out, attempts, size, time, reason."""
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
        (fit(escape(file.name), name_width, keep_end=True), base or "text"),
        (f" {rows:>13}", base or "text"),
        (f" {left_out:>6}", base or "warn"),
        (f" {file.attempts if file.attempts > 1 else '':>2} ", base or "dim"),
    ]
    if width >= 100:
        spans.append((f"{size(file.size_bytes):>9} ", base or "dim"))
    spans.append((f"{when:>11} ", base or "dim"))
    if reason_width > 0:
        spans.append((fit(escape(file.reason or ""), reason_width), base or "dim"))
    return line(*spans)


def detail_lines(file: FileRow | None, width: int, height: int, marker: Marker) -> list[Line]:
    """The file on the cursor: its rows, size, attempts, times and reason."""
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
            (fit(escape(file.name), max(4, width - 16), keep_end=True).rstrip(), "title"),
            (f" {file.status}", STATUS_STYLES[file.status]),
            marker=marker,
        ),
        line((", ".join(words), "dim")),
    ]
    if file.reason:
        drawn += [line((part, "warn")) for part in wrap(escape(file.reason), width)]
    return drawn[:height]


def files_tsv(rows: Sequence[FileRow]) -> str:
    """All columns of some files."""
    return tsv(_TSV_COLUMNS, ([getattr(row, name) or "" for name in _TSV_COLUMNS] for row in rows))
