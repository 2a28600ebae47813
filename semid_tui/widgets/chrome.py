"""The lines around the screens: status, tabs, commands, keys."""

from __future__ import annotations

import time

from textual.binding import Binding

from semid_tui.render.spans import Line, Span, length, line
from semid_tui.render.status import command_line, status_line, tab_line
from semid_tui.widgets.cell_widget import CellWidget

_SHOWN_FOR_S = 10.0


class StatusLine(CellWidget):
    """What matters most, in one line."""

    def lines(self, width: int, height: int) -> list[Line]:
        lost = self.monitor.unavailable
        return [status_line(self.monitor.overview, width, self.monitor.mode, lost.title if lost else None)]


class TabLine(CellWidget):
    """Where one is, and where one can go."""

    def lines(self, width: int, height: int) -> list[Line]:
        return [tab_line(self.monitor.shown, width)]


class CommandLine(CellWidget):
    """The last command sent from here, until some seconds after its answer."""

    def lines(self, width: int, height: int) -> list[Line]:
        now = time.monotonic()
        sent = self.monitor.gateway.sent
        return [command_line(sent[-1], now, width)] if sent else []

    def update(self) -> None:
        sent = self.monitor.gateway.sent
        self.display = bool(sent) and (sent[-1].is_open or time.monotonic() - sent[-1].state_s < _SHOWN_FOR_S)
        if self.display:
            self.redraw()


class KeyBar(CellWidget):
    """The keys of the moment, each of them to be clicked too. What does not fit is in the help."""

    def on_mount(self) -> None:
        super().on_mount()
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.redraw())

    def lines(self, width: int, height: int) -> list[Line]:
        active = self.screen.active_bindings.values()
        shown: dict[str, Binding] = {}
        for _, binding, enabled, _ in active:
            if binding.show and enabled and binding.description:
                shown.setdefault(binding.action, binding)
        always = [binding for binding in shown.values() if binding.action in ("app.help", "help", "quit", "app.quit")]
        others = [binding for binding in shown.values() if binding not in always]
        right = line(Span("^p", "key", "app.command_palette"), Span(" palette", "dim", "app.command_palette"))
        room = width - sum(length(self._key(each)) for each in always) - 1
        spans: list[Span] = []
        for binding in others:
            key = self._key(binding)
            if length(tuple(spans)) + length(key) > room:
                break
            spans += key
        for binding in always:
            spans += self._key(binding)
        gap = width - length(tuple(spans)) - length(right)
        return [(*spans, Span(" " * gap), *right) if gap >= 1 else tuple(spans)]

    def _key(self, binding: Binding) -> Line:
        click = f"app.press({binding.key!r})"
        return (
            Span(self.app.get_key_display(binding), "key", click),
            Span(f" {binding.description}", "dim", click),
            Span("  "),
        )
