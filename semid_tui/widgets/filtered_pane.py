"""Screens with a filter: `/` shows an input below the list, enter keeps the text, escape clears it."""

from __future__ import annotations

from textual import events
from textual.widgets import Input

from semid_tui.widgets.pane import Pane


class FilteredPane(Pane):
    """Subclasses compose an Input, filter their list by `text`, and read anew in `filter_changed`."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.text = ""

    def filter_changed(self) -> None:
        """`text` has changed."""
        raise NotImplementedError

    def on_mount(self) -> None:
        self.query_one(Input).display = False

    def start_filter(self) -> bool:
        box = self.query_one(Input)
        box.display = True
        self.screen.set_focus(box)
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value != self.text:
            self.text = event.value
            self.filter_changed()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.set_focus(self.main())
        event.input.display = bool(self.text)

    def on_key(self, event: events.Key) -> None:
        box = self.query_one(Input)
        if event.key == "escape" and box.display:
            event.stop()
            box.value = ""
            box.display = False
            self.screen.set_focus(self.main())
