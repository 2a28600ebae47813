"""The latest events and commands. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from semid_daemon.base.text import escape
from semid_daemon.store.read.monitor import CommandState, Event
from semid_tui.context import Marker, SentCommand
from semid_tui.render.spans import Line, Part, line, rule
from semid_tui.render.text import age_s, clock, duration, fit, tsv, wrap
from semid_tui.render.theme import LEVEL_STYLES

_STATE_STYLES = {"accepted": "accent", "done": "good", "failed": "bad"}


def list_lines(
    events: Sequence[Event], back: int, level: str, text: str, width: int, height: int, marker: Marker
) -> list[Line]:
    """Events, the newest at the bottom, under a heading that names the filter.

    `events` are newest first, and the first `back` of them lie below the window. A long message goes on in the next
    line, as far as there is room.
    """
    heading: list[Part] = [("events", "title")]
    if level:
        heading.append((f" · {level}", LEVEL_STYLES[level]))
    if text:
        heading.append((f" · with “{escape(text)}”", "accent"))
    if back:
        heading.append((f" · {back:,} newer below, space follows", "warn"))
    drawn = [rule(width, *heading, marker=marker)]
    if not events:
        return [*drawn, line(("none", "dim"))]
    shown: list[Line] = []
    for event in events[back:]:
        if len(shown) >= height - 1:
            break
        shown = [*event_rows(event, width), *shown]
    return [*drawn, *shown[-(height - 1) :]]


def event_rows(event: Event, width: int) -> list[Line]:
    """An event in as many lines as it needs, four at most."""
    when = clock(event.at)
    head = f"{when} {event.level[:4].upper():<5}"
    parts = wrap(escape(event.message), max(10, width - len(head)))[:4]
    first = line(
        (f"{when} ", "dim"), (f"{event.level[:4].upper():<5}", LEVEL_STYLES.get(event.level, "text")), parts[0]
    )
    return [first, *(line(" " * len(head) + part) for part in parts[1:])]


def command_list_lines(
    commands: Sequence[CommandState], sent: Sequence[SentCommand], width: int, marker: Marker
) -> list[Line]:
    """The commands sent from here that the daemon has not recorded yet, then the recorded ones with their answers."""
    drawn = [rule(width, ("commands", "title"), marker=marker)]
    recorded = {command.name for command in commands}
    for queued in reversed([command for command in sent if command.is_open and command.name not in recorded]):
        drawn.append(line((f"{queued.command} {escape(queued.about)}", "strong"), (" queued", "warn")))
    drawn += [command_row(command, width) for command in commands]
    return drawn if len(drawn) > 1 else [*drawn, line(("none yet", "dim"))]


def command_row(command: CommandState, width: int) -> Line:
    """`09:01:02 retry {"all": true} done after 0.3s: 2 files`."""
    took = ""
    asked, answered = age_s(command.requested_at), age_s(command.answered_at)
    if asked is not None and answered is not None and asked >= answered:
        took = f" after {duration(asked - answered)}"
    arguments = "" if command.arguments in ("{}", "") else f" {command.arguments}"
    return line(
        (f"{clock(command.requested_at)} ", "dim"),
        (escape(command.command), "strong"),
        (fit(escape(arguments), min(len(arguments), max(0, width // 3))), "dim"),
        (f" {command.state}", _STATE_STYLES.get(command.state, "text")),
        (took, "dim"),
        f": {escape(command.answer)}" if command.answer else "",
    )


def events_tsv(events: Sequence[Event]) -> str:
    """Events, the oldest first; `events` are newest first."""
    return tsv(("at", "level", "message"), ((event.at, event.level, event.message) for event in reversed(events)))
