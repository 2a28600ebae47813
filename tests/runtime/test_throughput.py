"""Rates over the last 15 s and the time left, from a fake clock."""

from __future__ import annotations

import contextlib

import pytest

from semid_daemon.runtime.throughput import StepsTold, Throughput


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_rates_and_time_left():
    clock = Clock()
    throughput = Throughput(lambda: 6_000.0, clock)
    assert throughput.gauges()["eta_s"] is None
    with throughput.turn():
        throughput.file_at("a.npz", 100, 20, 1_000)
        for done in (40, 60):
            clock.time += 2
            throughput.file_at("a.npz", 100, done, 1_000)
        gauges = throughput.gauges()
        assert gauges["rows_per_s"] == pytest.approx(10)  # 40 rows in 4 s; the 20 before are not of this turn
        assert gauges["bytes_per_s"] == pytest.approx(100)
        assert (gauges["file"], gauges["file_rows"], gauges["file_rows_done"]) == ("a.npz", 100, 60)
        assert gauges["file_eta_s"] == pytest.approx(4)
        assert gauges["eta_s"] == pytest.approx(60)
    clock.time += 60
    gauges = throughput.gauges()
    assert (gauges["rows_per_s"], gauges["file"], gauges["file_eta_s"], gauges["eta_s"]) == (0, None, None, None)


def test_a_file_whose_rows_are_not_known_yet():
    throughput = Throughput(lambda: 0.0, Clock())
    with throughput.turn():
        throughput.file_at("a.npz", 0, 0, 1_000)
        gauges = throughput.gauges()
    assert (gauges["file"], gauges["file_rows"], gauges["file_eta_s"]) == ("a.npz", None, None)


def test_steps_are_told_to_both():
    shown: list[int] = []

    class Shown:
        @contextlib.contextmanager
        def task(self, title, total, unit="rows"):
            yield shown.append

    throughput = Throughput(lambda: 0.0, Clock())
    progress = StepsTold(Shown(), throughput)
    with progress.task("a.npz", 10) as advance:
        advance(5)
        assert throughput.gauges()["training_steps"] is None
    with progress.task("training", 300, "steps") as advance:
        advance(1)
        advance(1)
        gauges = throughput.gauges()
        assert (gauges["training_steps"], gauges["training_steps_most"]) == (2, 300)
    assert throughput.gauges()["training_steps"] is None
    assert shown == [5, 1, 1]
