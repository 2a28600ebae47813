"""What is shown while the database cannot be read."""

from __future__ import annotations

import time

from semid_daemon.store.read.connection import UnavailableError
from semid_tui.render.spans import Line, line
from semid_tui.render.text import clean, duration, wrapped
from semid_tui.widgets.cell_widget import CellWidget


class UnavailableNote(CellWidget):
    """What is wrong, why, what to do, and that it is tried again by itself."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.why: UnavailableError | None = None
        self._since_s = time.monotonic()
        self._tries = 0

    def tell(self, why: UnavailableError) -> None:
        if self.why is None or not self.display or self.why.title != why.title:
            self._since_s, self._tries = time.monotonic(), 0
        self.why = why
        self._tries += 1
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        if self.why is None:
            return []
        drawn: list[Line] = [(), line((f"  {self.why.title}", "bad")), ()]
        for text, style in ((self.why.message, "text"), (f"What to do: {self.why.remedy}.", "text")):
            drawn += [line(("  " + part, style)) for part in wrapped(clean(text), width - 4)]
            drawn.append(())
        since = duration(time.monotonic() - self._since_s)
        drawn.append(line((f"  Tried again every second by itself: {self._tries} times in {since}.", "dim")))
        return drawn
