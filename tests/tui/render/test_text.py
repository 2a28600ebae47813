"""Numbers, times and names as a terminal shows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_tui.render.text import count, duration, fit, short, size, tsv, wrap


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (short, 0, "0"), (short, 9.5, "9.5"), (short, 999, "999"), (short, 999.6, "1.00k"), (short, 48_100, "48.1k"),
        (short, 999_600, "1.00M"), (short, 123e6, "123M"), (short, 2.5e9, "2.50G"),
        (count, 99_999, "99,999"), (count, 100_000, "100k"),
        (duration, 0.42, "0.4s"), (duration, 9.97, "10s"), (duration, 59.6, "1m00s"), (duration, 2290, "38m10s"),
        (duration, 3599.9, "1h00m"), (duration, 18_120, "5h02m"), (duration, 273_600, "3d4h"), (duration, -1, "0.0s"),
        (size, 512, "512 B"), (size, 1536, "1.5 kB"), (size, 5 << 30, "5.0 GB"), (size, 200 << 40, "200 TB"),
    ],
)  # fmt: skip
def test_numbers(function, value, text):
    assert function(value) == text


def test_texts_are_escaped_and_measured():
    assert escape("a[red]\x1b[2J\n\u202e\x00é") == "a[red]\\x1b[2J\\n\\u202e\\x00é"
    assert (cell_len("abc"), cell_len("データ"), cell_len("e\u0301")) == (3, 6, 1)
    assert fit("データベース", 7) == "データ…"
    assert fit("/a/long/path.npz", 9, keep_end=True) == "…path.npz"
    assert (fit("ab", 4), fit("ab", 4, right=True), fit("ab", 0)) == ("ab  ", "  ab", "")


@pytest.mark.slow
@given(st.text(max_size=40), st.integers(0, 30), st.booleans())
def test_fitting_always_fits(text: str, cells: int, keep_end: bool):
    assert cell_len(fit(escape(text), cells, keep_end=keep_end)) == cells


WIDE = st.text("ab é\u0301データ漢👍🏽❤\ufe0f", max_size=30)


@given(WIDE, st.integers(0, 20), st.booleans(), st.booleans())
def test_wide_combining_and_emoji_fit(text: str, cells: int, right: bool, keep_end: bool):
    assert cell_len(fit(text, cells, right=right, keep_end=keep_end)) == cells


def test_a_cut_keeps_characters_whole():
    assert fit("データベース", 6) == "デー… "  # no half of a wide character
    assert fit("データベース", 6, keep_end=True) == "… ース"
    assert fit("e\u0301" * 4, 3) == "e\u0301e\u0301…"
    assert fit("❤\ufe0f❤\ufe0f❤\ufe0f", 5) == "❤\ufe0f❤\ufe0f…"
    assert fit("ab", 1) == "…"


def test_lines_are_wrapped():
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrap("a-b c-d", 4) == ["a-b", "c-d"]
    assert wrap("one-two-three", 9) == ["one-two-t", "hree"]
    assert wrap("データベース", 4) == ["デー", "タベ", "ース"]
    assert wrap("", 8) == [""]


@given(WIDE, st.integers(2, 12))
def test_no_line_is_longer_than_asked_for(text: str, cells: int):
    assert all(cell_len(row) <= cells for row in wrap(text, cells))


def test_tables_are_safe_for_a_terminal():
    assert tsv(("name", "rows"), [("a\x1b[2J\n", 3)]) == "name\trows\na\\x1b[2J\\n\t3\n"
