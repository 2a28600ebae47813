"""Numbers, times and names as a terminal shows them. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment

from semid_daemon.base.text import escape


def count(value: float) -> str:
    """12,345 as it is; from a hundred thousand on 123k, 4.56M, 7.89G."""
    if abs(value) < 100_000:
        return f"{value:,.0f}"
    return short(value)


def short(value: float) -> str:
    """Three digits and a unit: 48.1k, 1.02M; below a thousand as it is."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0}f}{unit}"
    return f"{value:.0f}" if abs(value) >= 99.5 or value == int(value) else f"{value:.1f}"


def size(value: float) -> str:
    """Bytes: 512 B, 1.2 GB."""
    for unit, scale in (("TB", 2**40), ("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.{1 if value / scale < 99.95 else 0}f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """0.4s, 12s, 38m10s, 5h02m, 3d4h."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def age_s(at: str | None, now: datetime | None = None) -> float | None:
    """Seconds since a time of the database."""
    if not at:
        return None
    try:
        return max(0.0, ((now or datetime.now(UTC)) - datetime.fromisoformat(at)).total_seconds())
    except (ValueError, TypeError):
        return None


def clock(at: str | None) -> str:
    """The time of day of a time of the database, in this machine's time zone; with the date if that is not today."""
    if not at:
        return "-"
    try:
        local = datetime.fromisoformat(at).astimezone()
    except ValueError:
        return escape(at)
    today = datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S") if local.date() == today else local.strftime("%m-%d %H:%M")


def loss(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def figure(value: float) -> str:
    """A whole number in full, another with four significant digits."""
    return f"{value:,.0f}" if value == int(value) else loss(value)


def percent(share: float) -> str:
    return f"{share:.1%}"


def fit(text: str, cells: int, *, right: bool = False, keep_end: bool = False) -> str:
    """Pad a text to so many cells, or cut it with "…". `keep_end` cuts the beginning: the end of a path tells more."""
    missing = cells - cell_len(text)
    if missing >= 0:
        return " " * missing + text if right else text + " " * missing
    room = cells - 1
    if room <= 0:
        return "…"[:cells] if cells > 0 else ""
    if keep_end:
        return f"…{Segment(text).split_cells(cell_len(text) - room)[1].text}"
    return set_cell_size(f"{chop_cells(text, room)[0]}…", cells)


def wrap(text: str, cells: int) -> list[str]:
    """Lines of at most so many cells. Longer words are broken; at least one line, which may be empty."""
    rows = textwrap.wrap(text, cells, break_on_hyphens=False)
    return [piece for row in rows for piece in chop_cells(row, cells)] or [""]


def tsv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as tab-separated text, with its heads; every value is made safe for a terminal."""
    lines = ["\t".join(columns), *("\t".join(escape(str(value)) for value in row) for row in rows)]
    return "\n".join(lines) + "\n"
