"""Questions and help."""

from __future__ import annotations

from semid_tui.render.dialogs import choice_lines, help_lines
from semid_tui.render.spans import plain


def test_a_question_with_its_answers():
    drawn = choice_lines("Try again?", ["retry a.npz", "retry all"], 1, 30)
    assert plain(drawn).splitlines() == [
        "Try again?", "", "1 retry a.npz", "2 retry all", "", "enter yes   esc no, change nothing",
    ]  # fmt: skip
    assert [drawn[number][1].style for number in (2, 3)] == ["text", "cursor"]
    assert plain(choice_lines("A question too long for its window", [], 0, 12)).splitlines()[0] == "A question …"


def test_help_by_sections():
    drawn = help_lines([("on this screen", [("l", "Log y")]), ("everywhere", [("q", "Quit"), ("[ ]", "Layer")])])
    assert plain(drawn).splitlines() == [
        "on this screen", "           l  Log y", "", "everywhere", "           q  Quit", "         [ ]  Layer",
    ]  # fmt: skip
