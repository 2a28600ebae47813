"""What all screens have in common: feeds while they are shown, and what the keys of the whole app ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from textual.containers import Vertical
from textual.widget import Widget

from semid_daemon.store.read.monitor import Overview
from semid_tui.data.queries import Feed
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

    def feeds(self) -> Mapping[str, Feed]:
        """What this screen wants read, by slot."""
        return {}

    def take_overview(self, overview: Overview) -> None:
        """The database has changed."""

    def take(self, slot: str, feed: Feed, result: Any) -> None:
        """An answer came."""

    def fail(self, slot: str, feed: Feed, error: str) -> None:
        """An answer could not be had."""
        self.monitor.notify(f"{slot}: {error}", severity="warning")

    def ask(self, again: bool = False) -> None:
        """What this screen wants has changed; with `again` it wants an answer though it may be the same."""
        if self.display:
            self.monitor.want(again)

    def redraw(self) -> None:
        """Draw every part anew."""
        for part in self.query(CellWidget):
            part.redraw()

    def main(self) -> Widget | None:
        """What has the keys when the screen is shown."""
        return next((each for each in self.query(Widget) if each.focusable), None)

    def copied(self) -> str | None:
        """What `y` copies."""
        return None

    def written(self) -> tuple[str, str]:
        """What `w` writes: the file's suffix, and its text."""
        parts: Sequence[CellWidget] = list(self.query(CellWidget))
        return "txt", "\n".join(plain(part.lines(*part.size)) for part in parts if part.size.area) + "\n"

    def start_filter(self) -> bool:
        """`/`: whether this screen has a filter of its own."""
        return False

    def retries(self) -> list[tuple[str, dict[str, Any]]]:
        """What `R` offers: (what is tried again, the command's arguments)."""
        return [("all deferred and rejected files", {"all": True})]
