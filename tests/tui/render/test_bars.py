"""Bars, sparklines, rank profiles, heat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from semid_tui.render.bars import bar, blocks, heat, rank_profile, sparkline


def test_a_single_dead_code_is_seen():
    usage = [100] * 8191 + [0]
    alive, dead = rank_profile(usage, 40, "braille", "layer-0")
    assert (len(alive.text), dead.text, dead.style) == (39, "×", "dead")
    assert rank_profile(usage, 40, "ascii", "layer-0")[1].text == "x"


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.integers(1, 60))
def test_rank_profiles_fill_their_width(usage: list[int], cells: int):
    spans = rank_profile(usage, cells, "braille", "layer-0")
    assert sum(len(span.text) for span in spans) == cells
    if any(usage) and cells > 1:
        assert spans[0].text
    if 0 in usage and cells > 1:
        assert spans[1].text


def test_heat_against_a_fair_share():
    assert heat(0, 10, "braille") == ("×", "dead")
    levels = [int(heat(items, 16, "braille")[1][-1]) for items in (1, 2, 4, 8, 16, 32, 64, 128, 1000)]
    assert levels == sorted(levels)
    assert levels[4] == 4
    assert levels[-1] == 7


def test_bars():
    assert [span.text for span in bar(0.5, 10, "braille")] == ["━" * 5, "━" * 5]
    assert [span.text for span in bar(0.55, 10, "braille")] == ["━" * 5 + "╸", "━" * 4]
    assert [span.text for span in bar(2.0, 4, "ascii")] == ["====", ""]
    assert blocks(0.51, 4, "braille") == "██  "
    assert blocks(0.001, 4, "braille") == "▏   "
    assert len(blocks(1.0, 4, "ascii")) == 4
    assert sparkline([1, 2, 3], 8, "braille") == "▁▅█"
    assert len(sparkline(list(range(100)), 8, "braille")) == 8
    assert sparkline([5, 5], 8, "braille") == "▄▄"
    assert sparkline([], 8, "braille") == ""
