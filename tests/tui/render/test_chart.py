"""The loss chart."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from semid_daemon.store.read.loss import LossPoint, smooth
from semid_tui.render.chart import View, draw_loss, last_smoothed, nice, ticks, value_at, value_range
from semid_tui.render.spans import plain
from tests.tui.render.values import curve


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


def test_the_first_steps_do_not_set_the_value_axis():
    losses = [9.0, 4.0, *(1.0 - step / 1000 for step in range(100))]
    bottom, top = value_range(curve(*losses).layers, log=False)
    assert bottom <= 0.9
    assert 1.0 <= top < 1.5
    drawn = plain(draw_loss(curve(*losses), 60, 10, View()))
    assert "9" not in drawn.splitlines()[0]


def test_layers_are_labelled_from_the_first_on():
    marks = ((1, "L0"), (21, "L1"))
    drawn = plain(draw_loss(curve(*[1.0, 0.5] * 20), 60, 8, View(marks=marks)))
    assert "┤L0" in drawn.splitlines()[0]
    assert "┊L1" in drawn.splitlines()[0]
