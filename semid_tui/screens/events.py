"""8 Events: what happened, and what was asked of the daemon and answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.store.read.monitor import CommandState, Event, Overview
from semid_tui.data.queries import CommandsQuery, EventsQuery, Query
from semid_tui.render.spans import Line, Part, line, rule
from semid_tui.render.text import age_s, clean, clock, duration, fit, wrapped
from semid_tui.render.theme import LEVEL_STYLES
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.filtered_pane import FilteredPane

_MOST = 500
_LEVELS = ("", "warning", "error", "info")
_STATE_STYLES = {"accepted": "accent", "done": "good", "failed": "bad"}


def command_row(command: CommandState, width: int) -> Line:
    """`09:01:02 retry {"all": true} done after 0.3s: 2 files`."""
    took = ""
    asked, answered = age_s(command.requested_at), age_s(command.answered_at)
    if asked is not None and answered is not None and asked >= answered:
        took = f" after {duration(asked - answered)}"
    arguments = "" if command.arguments in ("{}", "") else f" {command.arguments}"
    return line(
        (f"{clock(command.requested_at)} ", "dim"),
        (clean(command.command), "strong"),
        (fit(clean(arguments), min(len(arguments), max(0, width // 3))), "dim"),
        (f" {command.state}", _STATE_STYLES.get(command.state, "text")),
        (took, "dim"),
        f": {clean(command.answer)}" if command.answer else "",
    )


class EventsList(CellWidget, can_focus=True):
    """The latest events, the newest at the bottom."""

    BINDINGS = [
        Binding("up,k", "move(1)", "Up", show=False),
        Binding("down,j", "move(-1)", "Down", show=False),
        Binding("pageup", "page(1)", "Page up", show=False),
        Binding("pagedown", "page(-1)", "Page down", show=False),
        Binding("G,end,space", "follow", "Follow", key_display="space"),
        Binding("g,home", "move(100000)", "Oldest", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.back = 0  # how many of the newest lie below the window

    @property
    def pane(self) -> EventsPane:
        assert isinstance(self.parent, EventsPane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        pane, found = self.pane, self.pane.events
        self.back = max(0, min(self.back, len(found) - height + 1))
        heading: list[Part] = [("events", "title")]
        if pane.level:
            heading.append((f" · {pane.level}", LEVEL_STYLES[pane.level]))
        if pane.text:
            heading.append((f" · with “{clean(pane.text)}”", "accent"))
        if self.back:
            heading.append((f" · {self.back:,} newer below, space follows", "warn"))
        drawn = [rule(width, *heading, marker=self.monitor.marker)]
        if not found:
            return [*drawn, line(("none", "dim"))]
        # Long messages go on in the next line, as far as there is room.
        shown: list[Line] = []
        for event in found[self.back :]:
            if len(shown) >= height - 1:
                break
            shown = [*event_rows(event, width), *shown]
        return [*drawn, *shown[-(height - 1) :]]

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


def event_rows(event: Event, width: int) -> list[Line]:
    """An event in as many lines as it needs, four at most."""
    when = clock(event.at)
    head = f"{when} {event.level[:4].upper():<5}"
    parts = wrapped(clean(event.message), max(10, width - len(head)))[:4]
    first = line(
        (f"{when} ", "dim"), (f"{event.level[:4].upper():<5}", LEVEL_STYLES.get(event.level, "text")), parts[0]
    )
    return [first, *(line(" " * len(head) + part) for part in parts[1:])]


class CommandsList(CellWidget):
    """The latest commands, with their answers."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, EventsPane)
        drawn = [rule(width, ("commands", "title"), marker=self.monitor.marker)]
        recorded = {command.name for command in pane.commands}
        queued = [sent for sent in self.monitor.gateway.sent if sent.is_open and sent.name not in recorded]
        for sent in reversed(queued):
            drawn.append(line((f"{sent.command} {clean(sent.about)}", "strong"), (" queued", "warn")))
        drawn += [command_row(command, width) for command in pane.commands]
        return drawn if len(drawn) > 1 else [*drawn, line(("none yet", "dim"))]


class EventsPane(FilteredPane):
    """The log as people read it."""

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
        yield EventsList(id="events-list")
        yield CommandsList(id="events-commands")
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
            # Who reads further up is not moved by what comes below.
            listed.back += sum(event.id > self.events[0].id for event in result)
        self.events = result
        listed.redraw()

    def action_level(self, by: int) -> None:
        self.level = _LEVELS[(_LEVELS.index(self.level) + by) % len(_LEVELS)]
        self.subscribe()

    def filter_changed(self) -> None:
        self.subscribe()

    def saved_text(self) -> tuple[str, str]:
        rows = [f"{event.at}\t{event.level}\t{clean(event.message)}" for event in reversed(self.events)]
        return "tsv", "\n".join(["at\tlevel\tmessage", *rows]) + "\n"
