"""Questions and help."""

from __future__ import annotations

from semid_tui.render.dialogs import choice_lines, help_lines
from semid_tui.render.spans import plain


def test_a_question_with_its_answers():
    drawn = choice_lines("Try again?", ["Two files."], ["retry a.npz", "retry all"], 1, 30)
    assert plain(drawn).splitlines() == [
        "Try again?", "Two files.", "", "1 retry a.npz", "2 retry all", "n no, change nothing",
    ]  # fmt: skip
    assert [drawn[number][1].style for number in (3, 4, 5)] == ["text", "cursor", "text"]
    assert choice_lines("", [], ["a"], 1, 30)[-1][1].style == "cursor"


def test_nothing_of_a_question_is_cut():
    drawn = choice_lines("A question too long for its window", [], ["an answer too long"], 0, 12)
    assert plain(drawn).splitlines() == [
        "A question", "too long for", "its window", "", "1 an answer", "  too long", "n no, change", "  nothing",
    ]  # fmt: skip


def test_help_by_sections():
    drawn = help_lines([("on this screen", [("l", "Log y")]), ("everywhere", [("q", "Quit"), ("[ ]", "Layer")])])
    assert plain(drawn).splitlines() == [
        "on this screen", "           l  Log y", "", "everywhere", "           q  Quit", "         [ ]  Layer",
    ]  # fmt: skip
