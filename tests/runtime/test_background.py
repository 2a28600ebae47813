"""Long computations beside the heartbeat."""

from __future__ import annotations

import threading

import pytest

from semid_daemon.runtime.background import iterate_in_background, run_in_background


def test_ticks_come_while_the_work_lasts():
    """The work ends only after two ticks, each in the caller's thread."""
    ticked, threads = threading.Semaphore(0), set()

    def tick() -> None:
        threads.add(threading.current_thread())
        ticked.release()

    def work() -> int:
        assert all(ticked.acquire(timeout=60) for _ in range(2))
        return 7

    assert run_in_background(work, tick) == 7
    assert threads == {threading.current_thread()}


def test_what_the_work_raises():
    with pytest.raises(MemoryError, match="too much"):
        run_in_background(lambda: (_ for _ in ()).throw(MemoryError("too much")), lambda: None)


def test_what_a_tick_raises_waits_for_the_work():
    begun, ended = threading.Event(), []

    def work() -> None:
        assert begun.wait(60)
        ended.append(True)

    def tick() -> None:
        begun.set()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        run_in_background(work, tick)
    assert ended == [True]


def test_items_come_one_by_one_until_they_end():
    made = []

    def steps():
        for number in (1, 2, None, 4):
            made.append(number)
            yield number

    got = []
    for step in iterate_in_background(steps(), lambda: None):
        got.append(step)
        assert made == got
    assert got == [1, 2, None, 4]


def test_all_items_come_from_one_thread():
    """Each thread has OpenMP threads of its own, which a new thread for every item would start anew."""
    threads = list(iterate_in_background((threading.current_thread() for _ in range(5)), lambda: None))

    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
