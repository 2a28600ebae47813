"""Events and commands."""

from __future__ import annotations

from semid_daemon.store.read.monitor import CommandState, Event
from semid_tui.context import SentCommand
from semid_tui.render.events import command_list_lines, event_rows, events_tsv, list_lines
from semid_tui.render.spans import plain

AT = "2026-01-01T00:00:00.000Z"
EVENTS = tuple(Event(number, AT, "info", f"event {number}") for number in range(9, 0, -1))  # newest first


def messages(lines) -> list[str]:
    return [plain([line]).partition("INFO ")[2] for line in lines]


def test_the_newest_event_is_at_the_bottom():
    heading, *shown = list_lines(EVENTS, 0, "", "", 60, 4, "braille")
    assert plain([heading]).startswith("─events──")
    assert messages(shown) == ["event 7", "event 8", "event 9"]
    heading, *shown = list_lines(EVENTS, 2, "warning", "x\n", 80, 4, "braille")
    assert plain([heading]).startswith("─events · warning · with “x\\n” · 2 newer below, space follows─")
    assert messages(shown) == ["event 5", "event 6", "event 7"]
    assert plain(list_lines((), 0, "", "", 60, 4, "ascii")).splitlines()[1] == "none"


def test_a_long_message_goes_on_below_four_lines_at_most():
    rows = event_rows(Event(1, AT, "error", "word " * 60), 40)
    assert len(rows) == 4
    indents = [len(text) - len(text.lstrip()) for text in plain(rows).splitlines()]
    assert indents == [0, *[plain(rows).index("word")] * 3]
    assert plain(event_rows(Event(1, AT, "info", ""), 40)).endswith("INFO")
    assert len(list_lines((Event(1, AT, "error", "word " * 60), *EVENTS), 0, "", "", 40, 4, "ascii")) == 4


def test_commands_wait_above_those_that_are_recorded():
    recorded = CommandState(
        "1.json", "retry", '{"all": true}', "done", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:02.000Z", "2 files"
    )
    sent = [SentCommand("1.json", "retry", "all", 0.0), SentCommand("2.json", "train", "x\x1b", 1.0)]
    _, queued, done = command_list_lines([recorded], sent, 80, "braille")
    assert plain([queued]) == "train x\\x1b queued"
    assert plain([done]).endswith('retry {"all": true} done after 2.0s: 2 files')
    assert plain(command_list_lines([], [], 20, "ascii")).splitlines()[1] == "none yet"


def test_events_as_a_table_oldest_first():
    assert events_tsv((Event(2, "t2", "info", "b\n"), Event(1, "t1", "error", "a"))) == (
        "at\tlevel\tmessage\nt1\terror\ta\nt2\tinfo\tb\\n\n"
    )
