"""Lines of styled text, cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_tui.render.spans import cells_of, changed_spans, ends, line, plain, rule


@given(st.lists(st.text(max_size=12), max_size=4), st.integers(1, 30))
def test_a_line_is_as_many_cells_as_asked_for(texts: list[str], cells: int):
    drawn = cells_of(line(*map(escape, texts)), cells)
    assert len(drawn) == cells
    assert sum(cell_len(character) for character, _, _ in drawn) == cells


@given(st.text("ab é\u0301\u3099データ漢👍🏽❤\ufe0f", max_size=20), st.integers(1, 30))
def test_emoji_and_combining_marks_fill_the_line_too(text: str, cells: int):
    drawn = cells_of(line(text), cells)
    assert len(drawn) == cells
    assert cell_len("".join(character for character, _, _ in drawn)) == cells


def test_wide_and_combining_characters_take_their_cells():
    assert [cell[0] for cell in cells_of(line("データ"), 5)] == ["デ", "", "ー", "", " "]
    assert [cell[0] for cell in cells_of(line("e\u0301x"), 3)] == ["e\u0301", "x", " "]
    assert [cell[0] for cell in cells_of(line("デ", "\u3099x"), 4)] == ["デ\u3099", "", "x", " "]
    assert [cell[0] for cell in cells_of(line("❤\ufe0f!"), 3)] == ["❤\ufe0f", "", "!"]
    assert [cell[0] for cell in cells_of(line("a👍"), 2)] == ["a", " "]


def test_changed_cells_alone_are_repainted():
    before, after = cells_of(line("loss 0.214 ▼1.2%"), 20), cells_of(line("loss 0.213 ▼1.9%"), 20)
    assert changed_spans(before, after) == [(9, 10), (14, 15)]
    assert changed_spans(before, after, gap=6) == [(9, 15)]
    assert changed_spans(before, before) == []
    assert changed_spans(before, cells_of(line(("loss 0.214 ▼1.2%", "bad")), 20)) == [(0, 16)]


def test_rules_and_ends():
    assert plain([rule(20, ("loss", "title"), marker="braille")]) == "─loss" + "─" * 15
    assert plain([rule(8, "much too long", marker="ascii")]).startswith("-much")
    assert plain([ends(line("left"), line("right"), 12)]) == "left   right"
    assert plain([ends(line("left"), line("right"), 8)]) == "left"
