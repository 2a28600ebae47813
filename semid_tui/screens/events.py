"""8 Events: the daemon's events, and the commands that it was sent with their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.store.read.monitor import CommandState, Event, Overview
from semid_tui.data.queries import CommandsQuery, EventsQuery, Query
from semid_tui.render.events import command_list_lines, events_tsv, list_lines
from semid_tui.render.spans import Line
from semid_tui.widgets.filtered_pane import FilteredPane
from semid_tui.widgets.pane import PanePart

_MOST = 500
_LEVELS = ("", "warning", "error", "info")


class EventsList(PanePart["EventsPane"], can_focus=True):
    """The latest events, the newest at the bottom."""

    BINDINGS = [
        Binding("up,k", "move(1)", "Up", show=False),
        Binding("down,j", "move(-1)", "Down", show=False),
        Binding("pageup", "page(1)", "Page up", show=False),
        Binding("pagedown", "page(-1)", "Page down", show=False),
        Binding("G,end,space", "follow", "Follow", key_display="space"),
        Binding("g,home", "move(100000)", "Oldest", show=False),
    ]

    def __init__(self, pane: EventsPane, *, id: str) -> None:
        super().__init__(pane, id=id)
        self.back = 0  # how many of the newest lie below the window

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        self.back = max(0, min(self.back, len(pane.events) - height + 1))
        return list_lines(pane.events, self.back, pane.level, pane.text, width, height, self.monitor.marker)

    def action_move(self, by: int) -> None:
        self.back = max(0, self.back + by)
        self.redraw()

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 2))

    def action_follow(self) -> None:
        self.back = 0
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_move(-3)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(3)


class CommandsList(PanePart["EventsPane"]):
    """The latest commands, with their answers."""

    def lines(self, width: int, height: int) -> list[Line]:
        return command_list_lines(self.pane.commands, self.monitor.sent_commands, width, self.monitor.marker)


class EventsPane(FilteredPane):
    """Events, filtered by level and text, and commands."""

    BINDINGS = [
        Binding("left_square_bracket", "level(-1)", "Level", key_display="[ ]"),
        Binding("right_square_bracket", "level(1)", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.events: Sequence[Event] = ()
        self.commands: Sequence[CommandState] = ()
        self.level = ""

    def compose(self) -> ComposeResult:
        yield EventsList(self, id="events-list")
        yield CommandsList(self, id="events-commands")
        yield Input(placeholder="part of a message; enter keeps it, esc clears it")

    def main(self) -> EventsList:
        return self.query_one(EventsList)

    def queries(self) -> Mapping[str, Query]:
        return {"events": EventsQuery(_MOST, self.text, self.level), "commands": CommandsQuery()}

    def on_overview(self, overview: Overview) -> None:
        self.query_one(CommandsList).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        if slot == "commands":
            self.commands = result
            self.query_one(CommandsList).redraw()
            return
        listed = self.query_one(EventsList)
        if listed.back and self.events and result:
            # New events come below; a window further up stays where it is.
            listed.back += sum(event.id > self.events[0].id for event in result)
        self.events = result
        listed.redraw()

    def action_level(self, by: int) -> None:
        self.level = _LEVELS[(_LEVELS.index(self.level) + by) % len(_LEVELS)]
        self.subscribe()

    def filter_changed(self) -> None:
        self.subscribe()

    def saved_text(self) -> tuple[str, str]:
        return "tsv", events_tsv(self.events)
