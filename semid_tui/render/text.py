"""Numbers, times and names as a terminal shows them. Pure functions."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

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
        return clean(at)
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


def clean(text: str) -> str:
    """Text from files and items made safe for a terminal: what is no printable character is escaped."""
    return escape(text)


def width(text: str) -> int:
    """Cells that a text takes up."""
    return len(text) if text.isascii() else sum(map(char_width, text))


def char_width(character: str) -> int:
    """0, 1 or 2 cells."""
    if character.isascii():
        return 1
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, cells: int, *, right: bool = False, keep_end: bool = False) -> str:
    """Cut with "…" or pad to so many cells. `keep_end` cuts at the beginning: of a path the end tells more."""
    missing = cells - width(text)
    if missing >= 0:
        return " " * missing + text if right else text + " " * missing
    if cells <= 0:
        return ""
    taken, room = [], cells - 1
    for character in reversed(text) if keep_end else text:
        room -= char_width(character)
        if room < 0:
            break
        taken.append(character)
    kept = "".join(reversed(taken)) if keep_end else "".join(taken)
    return fit(f"…{kept}" if keep_end else f"{kept}…", cells)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many characters; words that are longer are broken."""
    lines = [""]
    for word in text.split(" "):
        while len(word) > width:
            room = width - len(lines[-1]) - (1 if lines[-1] else 0)
            lines[-1] += (" " if lines[-1] else "") + word[:room]
            word = word[room:]
            lines.append("")
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
