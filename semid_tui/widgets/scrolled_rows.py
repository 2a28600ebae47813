"""A list with a cursor. The rows around the cursor are shown."""

from __future__ import annotations

from textual.binding import Binding

from semid_tui.widgets.pane import PanePart, PaneT


class ScrolledRows(PanePart[PaneT], can_focus=True):
    """Keys and the wheel move the cursor. `top` is the first row shown. Subclasses hold the rows and the cursor."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
    ]

    def __init__(self, pane: PaneT, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.top = 0

    def scroll_to_cursor(self, cursor: int, rows: int, height: int) -> None:
        """Set `top` so that the cursor is among the `height` rows shown, and none of these stays empty."""
        self.top = max(0, min(max(min(self.top, cursor), cursor - height + 1), rows - height))

    def action_move(self, by: int) -> None:
        """Move the cursor by so many rows."""
        raise NotImplementedError

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 1))

    def on_mouse_scroll_down(self) -> None:
        self.action_move(3)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-3)
