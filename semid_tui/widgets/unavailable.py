"""The screen that is shown while the database cannot be read."""

from __future__ import annotations

import time

from semid_daemon.store.read.connection import UnavailableError
from semid_tui.render.spans import Line
from semid_tui.render.unavailable import unavailable_lines
from semid_tui.widgets.cell_widget import CellWidget


class UnavailableNote(CellWidget):
    """The fault, its remedy, and how often reading was tried again since the fault began."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.error: UnavailableError | None = None
        self._since_s = time.monotonic()
        self._tries = 0

    def show_error(self, error: UnavailableError) -> None:
        """Count one more try. Another fault, or the first after a time of reading, begins at one."""
        if self.error is None or not self.display or self.error.title != error.title:
            self._since_s, self._tries = time.monotonic(), 0
        self.error = error
        self._tries += 1
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        if self.error is None:
            return []
        return unavailable_lines(self.error, time.monotonic() - self._since_s, self._tries, width)
