"""What is drawn, by pure functions: chart, bars, cells, numbers, the status line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_daemon.store.read.monitor import LossCurve, LossPoint
from semid_daemon.store.read.search import Branch
from semid_tui.context import SentCommand
from semid_tui.render.bars import bar, blocks, heat, rank_profile, sparkline
from semid_tui.render.chart import View, draw_loss, last_smoothed, nice, smooth, ticks, value_at, value_range
from semid_tui.render.codes import Grid
from semid_tui.render.spans import cells_of, changed_spans, ends, line, plain, rule
from semid_tui.render.status import SCREENS, command_line, tab_line
from semid_tui.render.text import count, duration, fit, short, size, wrap
from semid_tui.render.tree import unfolded_rows


def curve(*losses: float, layer: int = 0) -> LossCurve:
    points = tuple(LossPoint(step, 1, loss, loss, loss) for step, loss in enumerate(losses, 1))
    return LossCurve("train-1", ("train-1",), 1, {layer: points})


# -- numbers -------------------------------------------------------------------------------------------


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


@given(st.text(max_size=40), st.integers(0, 30), st.booleans())
def test_fitting_always_fits(text: str, cells: int, keep_end: bool):
    assert cell_len(fit(escape(text), cells, keep_end=keep_end)) == cells


# -- cells ---------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), max_size=4), st.integers(1, 30))
def test_a_line_is_as_many_cells_as_asked_for(texts: list[str], cells: int):
    drawn = cells_of(line(*map(escape, texts)), cells)
    assert len(drawn) == cells
    assert sum(cell_len(character) for character, _, _ in drawn) == cells


def test_wide_and_combining_characters_take_their_cells():
    assert [cell[0] for cell in cells_of(line("データ"), 5)] == ["デ", "", "ー", "", " "]
    assert [cell[0] for cell in cells_of(line("e\u0301x"), 3)] == ["e\u0301", "x", " "]


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


# -- the chart -----------------------------------------------------------------------------------------


def test_nice_numbers_and_ticks():
    assert [nice(value) for value in (0.11, 1, 1.1, 3, 7, 45)] == pytest.approx([0.2, 1, 2, 5, 10, 50])
    assert ticks(0.5, 2.0, 6, False) == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert ticks(0, 1, 3, False) == pytest.approx([0, 0.5, 1])
    values = ticks(0.01, 10, 5, True)
    assert values[0] == pytest.approx(0.01)
    assert values[-1] == pytest.approx(10)
    assert len(values) <= 5


def test_the_axis_does_not_move_with_every_value():
    low = {0: (LossPoint(1, 1, 0.61, 0.61, 0.61), LossPoint(2, 1, 1.49, 1.49, 1.49))}
    high = {0: (LossPoint(1, 1, 0.57, 0.57, 0.57), LossPoint(2, 1, 1.43, 1.43, 1.43))}
    assert value_range(low, False) == value_range(high, False) == (0.5, 1.5)
    assert value_range(low, True) == (0.5, 2.0)


def test_a_spike_never_vanishes():
    """One step in ten thousand, and still on the chart."""
    losses = [1.0] * 10_000
    losses[5_000] = 9.0
    drawn = plain(draw_loss(curve(*losses), 80, 8, View()))
    top = drawn.splitlines()[0]
    assert any("\u2801" <= character <= "\u28ff" for character in top)
    coarse = plain(draw_loss(curve(*losses), 80, 8, View(marker="ascii"))).splitlines()
    assert ":" in coarse[0] + coarse[1]


@pytest.mark.parametrize("marker", ["braille", "block", "ascii"])
@pytest.mark.parametrize("losses", [(1.0,), (1.0, 1.0), (0.0, 0.0), (1e-9, 5e9), (3.0, -1.0, 2.0)])
def test_odd_losses_are_drawn(losses: tuple[float, ...], marker):
    for log in (False, True):
        for size_ in ((40, 3), (60, 6), (200, 40)):
            drawn = draw_loss(curve(*losses), *size_, View(log=log, marker=marker))
            assert len(drawn) <= size_[1]
            assert all(sum(cell_len(span.text) for span in each) <= size_[0] for each in drawn)


def test_losses_that_are_no_numbers_are_left_out():
    assert "no loss" in plain(draw_loss(curve(math.nan, math.inf), 60, 8, View()))
    assert "no loss" not in plain(draw_loss(curve(1.0, math.nan, 0.5), 60, 8, View()))


def test_smoothing_forgets_by_steps():
    falling = curve(*[1.0] * 500, *[0.5] * 500)
    smoothed = smooth(falling.layers[0])
    assert smoothed[499] == pytest.approx(1.0)
    assert smoothed[519] == pytest.approx(0.5 + 0.5 * math.exp(-1), abs=1e-6)  # 20 steps: two thirds forgotten
    assert last_smoothed(falling) == (1000, pytest.approx(0.5), pytest.approx(0, abs=1e-6))
    short_run = smooth(curve(*[1.0] * 10, *[0.5] * 15).layers[0])
    assert short_run[-1] == pytest.approx(0.5, abs=1e-6)  # a short run is not smoothed away


def test_the_crosshair_reads_the_step_it_is_on():
    layer, point, _ = value_at(curve(4.0, 3.0, 2.0), 2) or (None, None, None)
    assert layer == 0
    assert point == LossPoint(2, 1, 3.0, 3.0, 3.0)
    assert value_at(curve(), 1) is None


# -- bars ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("codes", "size_", "grid"), [
    (256, (120, 28), (32, 3)), (256, (80, 12), (32, 2)), (8192, (80, 20), (64, 1)), (8192, (160, 40), (128, 1)),
    (2, (20, 5), (4, 3)),
])  # fmt: skip
def test_grids_fit_their_screen(codes: int, size_: tuple[int, int], grid: tuple[int, int]):
    found = Grid.fitting(codes, *size_)
    assert (found.per_row, found.cell) == grid
    assert found.per_row * found.cell + 7 <= size_[0]


# -- lines and trees -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [60, 64, 72, 80, 81, 100, 160])
def test_tabs_fit_and_lead_to_their_screens(cells: int):
    spans = tab_line(3, cells)
    assert sum(len(span.text) for span in spans) <= cells
    tabs = [span for span in spans if span.click]
    assert [span.click for span in tabs] == [f"app.show({number})" for number in range(1, len(SCREENS) + 1)]
    assert [span.style for span in tabs].index("tab-active") == 2


def test_the_life_of_a_command():
    sent = SentCommand("1.json", "retry", "a[b].npz", 100.0, state_s=100.0)
    assert plain([command_line(sent, 100.3, 80)]) == "retry a[b].npz · queued 0.3s"
    assert "waits until a daemon runs" in plain([command_line(sent, 120.0, 80)])
    accepted = SentCommand("1.json", "train", "", 100.0, "accepted", 100.2)
    assert plain([command_line(accepted, 160.0, 80)]) == "train · queued → accepted 1m00s"
    failed = SentCommand("1.json", "train", "", 100.0, "failed", 100.5, "no\x1bt now " * 20)
    text = plain([command_line(failed, 160.0, 60)])
    assert text.startswith("train · queued → accepted → failed after 0.5s: no\\x1bt")
    assert len(text) <= 60


def test_lines_are_wrap():
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert all(len(each) <= 5 for each in wrap("a bb cccccccccc dd", 5))


def test_the_tree_shows_what_is_unfolded_and_that_there_is_more():
    children = {
        "": ((Branch("3", 8), Branch("1", 2)), 2),
        "3": ((Branch("3-0", 8),), 700),
        "3-0": ((Branch("item", 1, True),), 1),
    }
    rows = unfolded_rows(children, frozenset({"3", "3-0"}))
    assert [(row.branch.prefix, row.depth, row.share, row.more) for row in rows] == [
        ("3", 0, 1.0, 0),
        ("3-0", 1, 1.0, 0),
        ("item", 2, 1.0, 0),
        ("3", 1, 0.0, 699),
        ("1", 0, 0.25, 0),
    ]
    assert unfolded_rows({}, frozenset()) == []
