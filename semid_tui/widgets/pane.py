"""What all screens have in common: queries while they are shown, and what the keys of the whole app ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from textual.containers import Vertical
from textual.widget import Widget

from semid_daemon.store.read.monitor import Overview
from semid_tui.data.queries import Query
from semid_tui.render.spans import plain
from semid_tui.widgets.cell_widget import CellWidget

if TYPE_CHECKING:
    from semid_tui.app import MonitorApp


class Pane(Vertical):
    """One of the eight screens. It is told nothing, asks for nothing and draws nothing while it is hidden."""

    @property
    def monitor(self) -> MonitorApp:
        return cast("MonitorApp", self.app)

    @property
    def overview(self) -> Overview | None:
        return self.monitor.overview

    def queries(self) -> Mapping[str, Query]:
        """What this screen wants read, by slot."""
        return {}

    def on_overview(self, overview: Overview) -> None:
        """The database has changed."""

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        """An answer came."""

    def on_error(self, slot: str, query: Query, error: str) -> None:
        """An answer could not be had."""
        self.monitor.notify(f"{slot}: {error}", severity="warning")

    def subscribe(self, again: bool = False) -> None:
        """What this screen wants has changed; with `again` it wants an answer though it may be the same."""
        if self.display:
            self.monitor.subscribe(again)

    def redraw(self) -> None:
        """Draw every part anew."""
        for part in self.query(CellWidget):
            part.redraw()

    def main(self) -> Widget | None:
        """What has the keys when the screen is shown."""
        return next((each for each in self.query(Widget) if each.focusable), None)

    def copied_text(self) -> str | None:
        """What `y` copies."""
        return None

    def saved_text(self) -> tuple[str, str]:
        """What `w` writes: the file's suffix, and its text."""
        parts: Sequence[CellWidget] = list(self.query(CellWidget))
        return "txt", "\n".join(plain(part.lines(*part.size)) for part in parts if part.size.area) + "\n"

    def start_filter(self) -> bool:
        """`/`: whether this screen has a filter of its own."""
        return False

    def retry_offers(self) -> list[tuple[str, dict[str, Any]]]:
        """What `R` offers: (what is tried again, the command's arguments)."""
        return [("all deferred and rejected files", {"all": True})]
