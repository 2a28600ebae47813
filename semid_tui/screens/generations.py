"""7 Generations: the published and the prepared ones, two compared, and the drift of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.generations import GenerationRow, GenerationsSnapshot
from semid_tui.data.queries import GenerationsQuery, Query
from semid_tui.render.generations import detail_lines, switch_effects, table_lines
from semid_tui.render.spans import Line, line
from semid_tui.widgets.pane import Pane, PanePart


class GenerationsTable(PanePart["GenerationsPane"], can_focus=True):
    """All generations, the latest first."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("left_square_bracket", "move(1)", "Generation", key_display="[ ]"),
        Binding("right_square_bracket", "move(-1)", show=False),
        Binding("g,home", "move(-10000)", "First", show=False),
        Binding("G,end", "move(10000)", "Last", show=False),
    ]

    def __init__(self, pane: GenerationsPane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.cursor = self.top = 0

    def lines(self, width: int, height: int) -> list[Line]:
        snapshot = self.pane.snapshot
        number = len(snapshot.generations) if snapshot else 0
        self.cursor = max(0, min(self.cursor, number - 1))
        self.top = max(min(self.top, self.cursor), self.cursor - max(height - 1, 1) + 1)
        return table_lines(snapshot, self.cursor, self.top, width, height, self.monitor.marker)

    def action_move(self, by: int) -> None:
        self.cursor += by
        self.pane.redraw()

    async def on_click(self, event: events.Click) -> None:
        self.cursor = self.top + event.y - 1
        self.action_move(0)


class GenerationDetail(PanePart["GenerationsPane"], can_focus=True):
    """The chosen generation; tab goes here, arrows scroll where it is longer than the screen."""

    BINDINGS = [
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("pageup", "scroll(-10)", "Page up", show=False),
        Binding("pagedown", "scroll(10)", "Page down", show=False),
    ]

    def __init__(self, pane: GenerationsPane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.top = 0

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.snapshot is None:
            return []
        drawn = detail_lines(pane.snapshot, pane.chosen(), width, self.monitor.marker)
        self.top = max(0, min(self.top, len(drawn) - height))
        shown = drawn[self.top : self.top + height]
        below = len(drawn) - self.top - height
        if below > 0:
            shown[-1] = line((f"… {below + 1} more: tab, then arrows", "dim"))
        return shown

    def action_scroll(self, by: int) -> None:
        self.top += by
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_scroll(3)

    def on_mouse_scroll_up(self) -> None:
        self.action_scroll(-3)


class GenerationsPane(Pane):
    """Prepares a generation (T), promotes one (A) and rolls back to one (B)."""

    BINDINGS = [
        Binding("T", "app.train", "Train next"),
        Binding("A", "promote", "Promote"),
        Binding("B", "rollback", "Roll back"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.snapshot: GenerationsSnapshot | None = None

    def compose(self) -> ComposeResult:
        yield GenerationsTable(self, id="generations-table")
        yield GenerationDetail(self, id="generations-detail")

    def queries(self) -> Mapping[str, Query]:
        return {"generations": GenerationsQuery()}

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        self.snapshot = result
        number = len(result.generations)
        self.query_one(GenerationsTable).styles.height = max(3, min(number + 2, self.size.height // 2))
        self.redraw()

    def chosen(self) -> GenerationRow | None:
        """The generation on the cursor."""
        cursor = self.query_one(GenerationsTable).cursor
        rows = self.snapshot.generations if self.snapshot else ()
        return rows[cursor] if cursor < len(rows) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("promote", "rollback") and self.monitor.mode.readonly:
            return False
        return super().check_action(action, parameters)

    def _with_status(self, *statuses: str) -> GenerationRow | None:
        """The chosen generation if it has one of these statuses, otherwise the latest that has."""
        rows = [row for row in (self.snapshot.generations if self.snapshot else ()) if row.status in statuses]
        chosen = self.chosen()
        return chosen if chosen in rows else next(iter(rows), None)

    def action_promote(self) -> None:
        row = self._with_status("ready", "preparing")
        if row is None:
            self.monitor.notify("no generation is ready: T prepares one", timeout=4)
        else:
            self._confirm(row, "promote", "Make {} the active one? Every item gets its ID of it.", "promote {}")

    def action_rollback(self) -> None:
        row = self._with_status("retired")
        if row is None:
            self.monitor.notify("there is no former generation to go back to", timeout=4)
        else:
            self._confirm(
                row, "rollback", "Go back to {}? Every item gets the ID again that it had.", "roll back to {}"
            )

    def _confirm(self, row: GenerationRow, command: str, question: str, answer: str) -> None:
        """Ask before another generation becomes active; `{}` stands for it in both texts."""
        about = f"generation {row.generation}"
        arguments = {"generation": row.generation}
        self.monitor.confirm(
            question.format(about),
            [(answer.format(about), command, arguments, about)],
            switch_effects(self.snapshot, row) if self.snapshot else (),
        )

    def copied_text(self) -> str | None:
        row = self.chosen()
        return row.fingerprint if row else None
