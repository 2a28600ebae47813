"""The screen of a database that cannot be read. Pure functions."""

from __future__ import annotations

from semid_daemon.base.text import escape
from semid_daemon.store.read.connection import UnavailableError
from semid_tui.render.spans import Line, line
from semid_tui.render.text import duration, wrap


def unavailable_lines(error: UnavailableError, since_s: float, tries: int, width: int) -> list[Line]:
    """The fault, its cause, its remedy, and how often reading was tried again, for how many seconds."""
    drawn: list[Line] = [(), line((f"  {error.title}", "bad")), ()]
    for text in (error.message, f"What to do: {error.remedy}."):
        drawn += [line(f"  {part}") for part in wrap(escape(text), width - 4)]
        drawn.append(())
    words = f"  Tried again every second by itself: {tries} times in {duration(since_s)}."
    return [*drawn, line((words, "dim"))]
