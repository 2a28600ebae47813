"""Long computations beside the loop."""

from __future__ import annotations

import threading

import pytest

from semid_daemon.base.steps import finish
from semid_daemon.runtime.background import iterate_in_background, run_in_background


def test_control_comes_back_while_the_work_lasts():
    """The work ends only after two steps."""
    steps_done = threading.Semaphore(0)

    def work() -> int:
        assert all(steps_done.acquire(timeout=60) for _ in range(2))
        return 7

    steps = run_in_background(work)
    for _ in range(2):
        next(steps)
        steps_done.release()
    assert finish(steps) == 7


def test_what_the_work_raises():
    with pytest.raises(MemoryError, match="too much"):
        finish(run_in_background(lambda: (_ for _ in ()).throw(MemoryError("too much"))))


def test_closing_waits_for_the_work():
    may_end, ended = threading.Event(), []

    def work() -> None:
        assert may_end.wait(60)
        ended.append(True)

    steps = run_in_background(work)
    next(steps)
    may_end.set()
    steps.close()
    assert ended == [True]


def test_items_come_one_by_one_until_they_end():
    made = []

    def numbers():
        for number in (1, 2, 3):
            made.append(number)
            yield number

    got = []
    for number in iterate_in_background(numbers()):
        if number is not None:
            got.append(number)
            assert made == got
    assert got == [1, 2, 3]


def test_none_comes_while_an_item_takes_long():
    go_on = threading.Event()

    def slow():
        assert go_on.wait(60)
        yield 1

    items = iterate_in_background(slow())
    assert next(items) is None
    go_on.set()
    assert [item for item in items if item is not None] == [1]


def test_all_items_come_from_one_thread():
    """Each thread has OpenMP threads of its own, which a new thread for every item would start anew."""
    threads = [
        thread for thread in iterate_in_background(threading.current_thread() for _ in range(5)) if thread is not None
    ]
    assert len(threads) == 5
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
