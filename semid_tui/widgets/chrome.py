"""The lines around the screens: status, tabs, commands, keys."""

from __future__ import annotations

import time

from textual.binding import Binding

from semid_tui.render.spans import Line
from semid_tui.render.status import KeyHint, command_line, key_line, status_line, tab_line
from semid_tui.widgets.cell_widget import CellWidget

_SHOWN_FOR_S = 10.0
_KEPT_ACTIONS = ("app.help", "help", "quit", "app.quit")  # shown however narrow the terminal is


class StatusLine(CellWidget):
    """The state of the daemon in one line."""

    def lines(self, width: int, height: int) -> list[Line]:
        monitor = self.monitor
        problem = monitor.unavailable.title if monitor.unavailable else None
        return [status_line(monitor.overview, width, monitor.mode, problem)]


class TabLine(CellWidget):
    """The names of the screens; a click shows one."""

    def lines(self, width: int, height: int) -> list[Line]:
        return [tab_line(self.monitor.shown, width)]


class CommandLine(CellWidget):
    """The last command sent from here, until some seconds after its answer."""

    def lines(self, width: int, height: int) -> list[Line]:
        sent = self.monitor.sent_commands
        return [command_line(sent[-1], time.monotonic(), width)] if sent else []

    def update(self) -> None:
        """Show or hide the line, as the age of the answer says."""
        sent = self.monitor.sent_commands
        self.display = bool(sent) and (sent[-1].is_open or time.monotonic() - sent[-1].state_s < _SHOWN_FOR_S)
        if self.display:
            self.redraw()


class KeyBar(CellWidget):
    """The keys of the moment. A click presses one; the help has those that do not fit."""

    def on_mount(self) -> None:
        super().on_mount()
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.redraw())

    def lines(self, width: int, height: int) -> list[Line]:
        shown: dict[str, Binding] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            if binding.show and enabled and binding.description:
                shown.setdefault(binding.action, binding)
        return [key_line([self._hint(binding) for binding in shown.values()], width)]

    def _hint(self, binding: Binding) -> KeyHint:
        key = self.app.get_key_display(binding)
        return KeyHint(key, binding.description, f"app.press({binding.key!r})", binding.action in _KEPT_ACTIONS)
