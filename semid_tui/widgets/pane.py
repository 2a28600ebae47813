"""The base of the eight screens, and of the parts that a screen is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from textual.containers import Vertical
from textual.widget import Widget

from semid_daemon.store.read.monitor import Overview
from semid_tui.context import MonitorContext
from semid_tui.data.queries import Query
from semid_tui.render.spans import plain
from semid_tui.widgets.cell_widget import CellWidget


class Pane(Vertical):
    """One of the eight screens. While it is hidden it gets no results, subscribes to nothing and draws nothing."""

    @property
    def monitor(self) -> MonitorContext:
        return cast(MonitorContext, self.app)

    @property
    def overview(self) -> Overview | None:
        return self.monitor.overview

    def queries(self) -> Mapping[str, Query]:
        """The queries of this screen, by slot."""
        return {}

    def on_overview(self, overview: Overview) -> None:
        """The database has changed."""

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        """A query was answered."""

    def on_error(self, slot: str, query: Query, error: str) -> None:
        """A query failed."""
        self.monitor.notify(f"{slot}: {error}", severity="warning")

    def subscribe(self, again: bool = False) -> None:
        """Read what `queries` returns now; with `again` read it though nothing has changed."""
        if self.display:
            self.monitor.subscribe(again)

    def redraw(self) -> None:
        """Draw every part anew."""
        for part in self.query(CellWidget):
            part.redraw()

    def main(self) -> Widget | None:
        """The part that has the focus when the screen is shown."""
        return next((widget for widget in self.query(Widget) if widget.focusable), None)

    def copied_text(self) -> str | None:
        """The text that `y` copies; None where nothing can be copied."""
        return None

    def saved_text(self) -> tuple[str, str]:
        """The file that `w` saves: its suffix and its text."""
        parts = [part for part in self.query(CellWidget) if part.size.area]
        return "txt", "\n".join(plain(part.lines(*part.size)) for part in parts) + "\n"

    def start_filter(self) -> bool:
        """Begin to filter this screen, for `/`. Returns False where it has no filter."""
        return False

    def retry_offers(self) -> list[tuple[str, dict[str, Any]]]:
        """The choices of `R`: a description of the files, and the arguments of the command."""
        return [("all deferred and rejected files", {"all": True})]


PaneT = TypeVar("PaneT", bound=Pane)


class PanePart(CellWidget, Generic[PaneT]):
    """A part of a screen. It draws the state of its pane, and calls the pane when the user acts on it."""

    def __init__(self, pane: PaneT, *, id: str) -> None:
        super().__init__(id=id)
        self.pane = pane
