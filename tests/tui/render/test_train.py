"""A training run in figures."""

from __future__ import annotations

from dataclasses import replace

from semid_daemon.store.read.loss import LossCurve, LossPoint
from semid_tui.render.spans import plain
from semid_tui.render.train import crosshair_line, last_step, layer_marks, loss_tsv, run_lines, training_line
from tests.tui.render.values import curve, overview

TWO_LAYERS = LossCurve(
    "train-3",
    ("train-1", "train-3"),
    10,
    {0: (LossPoint(1, 10, 2.0, 4.0, 3.0),), 1: (LossPoint(11, 10, 1.0, 1.5, 1.25), LossPoint(21, 10, 0.5, 1.0, 0.75))},
)


def test_the_run_in_figures():
    heading, state, columns, first, second = run_lines(TWO_LAYERS, None, None, 0, None, 80, "braille")
    assert plain([heading]).startswith("─run 3 (2 of 2) · all layers · all steps · by 10─")
    assert plain([state]) == "← → put a crosshair on the chart"
    assert plain([columns]).split() == ["layer", "steps", "first", "last", "least", "change"]
    assert plain([first]).split() == ["L0", "10", "3", "3", "2", "+0.0%"]
    assert plain([second]).split()[:3] == ["L1", "20", "1.25"]
    assert second[-1].style == "good"
    heading, *_ = run_lines(TWO_LAYERS, None, 1, 1000, None, 80, "braille")
    assert "layer 1 · last 1,000 steps" in plain([heading])


def test_the_crosshair_comes_before_the_training_in_progress():
    assert plain([crosshair_line(TWO_LAYERS, 15)]).startswith("crosshair  L1 step 11–20  loss 1.25  1…1.5  smoothed ")
    assert plain([crosshair_line(curve(4.0, 3.0), 2)]).startswith("crosshair  L0 step 2  loss 3  3…3")
    assert crosshair_line(TWO_LAYERS, None) == ()
    training = overview(state="training", detail="layer 1, loss 0.2")
    assert plain([training_line(training)]) == "layer 1, loss 0.2"
    assert "crosshair" in plain([training_line(replace(training, heartbeat_at="2026-01-01T00:00:00.000Z"))])


def test_marks_and_the_last_step():
    assert layer_marks(TWO_LAYERS) == ((1, "L0"), (11, "L1"))
    assert (last_step(TWO_LAYERS), last_step(None), last_step(replace(TWO_LAYERS, layers={}))) == (21, 1, 1)


def test_a_run_as_a_table():
    assert loss_tsv(curve(2.0)) == "run\tlayer\tstep\tsteps\tlow\thigh\tmean\ntrain-1\t0\t1\t1\t2.0\t2.0\t2.0\n"
