"""Stages in threads: in order, bounded, closed at any moment; and which of them holds up the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from semid_daemon.ingest.pipeline import Backlog, mapped, prefetch
from semid_daemon.runtime.stage_timing import Stages, bottleneck


class Source:
    """Counts what is taken of it, and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.taken = 0
        self.closed = threading.Event()
        self._count = count
        self._fails_at = fails_at

    def items(self) -> Iterator[int]:
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise ValueError("damaged")
                self.taken += 1
                yield number
        finally:
            self.closed.set()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("semid-test")]


def test_items_come_in_order_through_every_stage():
    source = Source(100)
    stages = prefetch(mapped(lambda number: -number, prefetch(source.items(), "test-read")), "test-encode")
    assert list(stages) == [-number for number in range(100)]
    assert source.closed.is_set()
    assert threads() == []


def test_no_stage_runs_further_ahead_than_two_items():
    source, entered, go_on = Source(100), threading.Semaphore(0), threading.Semaphore(0)

    def work(number: int) -> int:
        entered.release()
        go_on.acquire()
        return number

    stages = prefetch(mapped(work, prefetch(source.items(), "test-read")), "test-encode")
    go_on.release()
    assert next(stages) == 0
    entered.acquire()
    entered.acquire()  # the second is in work: one more waits for it, one is in the reader's hands
    assert source.taken <= 4
    go_on.release(100)
    stages.close()
    assert source.closed.is_set()
    assert source.taken <= 6
    assert threads() == []


def test_a_fault_comes_after_the_items_before_it():
    source = Source(100, fails_at=3)
    stages = prefetch(mapped(lambda number: number, prefetch(source.items(), "test-read")), "test-encode")
    assert [next(stages) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(stages)
    assert source.closed.is_set()
    assert threads() == []


def test_one_looks_up_while_nothing_comes():
    go_on = threading.Event()

    def slow() -> Iterator[int]:
        go_on.wait()
        yield 7

    stages = prefetch(slow(), "test-slow", patience_s=0.01)
    assert next(stages) is None
    go_on.set()
    assert [item for item in stages if item is not None] == [7]


def test_making_knows_whether_something_is_left_to_be_used():
    backlog, told, taken = Backlog(), [], threading.Event()

    def make() -> Iterator[int]:
        for number in range(4):
            told.append(backlog.has_item)
            if number == 1:
                taken.wait(60)
            yield number

    stages = prefetch(make(), "test-make", 60.0, backlog)
    assert next(stages) == 0
    taken.set()
    until = time.monotonic() + 60
    while not backlog.has_item and time.monotonic() < until:
        time.sleep(0.001)  # 1 is left to be used, and 2 is made
    assert list(stages) == [1, 2, 3]
    assert told == [False, False, False, True]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stages_tell_what_holds_up_the_others():
    clock = Clock()
    stages = Stages(clock)
    assert stages.gauges()["bottleneck"] is None
    assert stages.metrics() == []
    with stages.timed("encode"):
        threading.Event().wait(0.02)
    clock.now += 2.0
    figures = stages.gauges()
    assert figures["bottleneck"] == "encode"
    assert figures["stage_encode_s"] >= 0.02
    assert figures["stage_read_s"] is None
    names = {metric.name: metric.value for metric in stages.metrics()}
    assert names["encode_s"] >= 0.02
    assert names["bottleneck_encode"] == names["encode_s"] / 2.0
    assert stages.metrics() == []  # not twice within a second
    clock.now += 20.0
    stages.gauges()
    clock.now += 20.0
    assert stages.gauges()["bottleneck"] is None  # of the last 15 s only


def test_the_busiest_stage_holds_up_the_others():
    worked = {"read": 1.0, "copy": 0.0, "encode": 3.0, "learn": 1.5, "commit": 2.0}
    assert bottleneck(worked) == "encode"
    assert bottleneck({**worked, "commit": 4.0}) == "commit"
    assert bottleneck(dict.fromkeys(worked, 0.0)) is None


def test_waiting_for_another_stage_is_no_work():
    stages = Stages()
    with stages.timed("commit"):
        started = time.perf_counter()
        with stages.waiting("commit"):
            threading.Event().wait(0.05)
        waited_s = time.perf_counter() - started
    assert 0 <= stages.seconds()["commit"] < waited_s


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path):
    script = Path(__file__).parents[2] / "benchmarks" / "pipeline.py"
    command = [sys.executable, str(script), "--rows", "1000", "--dim", "16", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "| semid, together" in done.stdout
