"""Whose turn it is."""

from __future__ import annotations

from semid_daemon.ingest.scheduler import MOST_OPEN, FileScheduler


def job(closed: list[str], name: str):
    try:
        while True:
            yield 1
    finally:
        closed.append(name)


def begun(closed: list[str], name: str):
    made = job(closed, name)
    next(made)
    return made


def test_a_huge_file_and_small_ones_alternate():
    scheduler = FileScheduler()
    closed: list[str] = []
    huge = begun(closed, "huge")
    assert scheduler.choose([1, 2, 3]) == 1
    scheduler.suspend(1, huge)
    order = []
    waiting = [1, 2, 3, 4]
    while waiting != [1]:
        chosen = scheduler.choose(waiting)
        order.append(chosen)
        if chosen == 1:
            assert scheduler.resume(1) is huge
            scheduler.suspend(1, huge)
        else:
            waiting.remove(chosen)
    assert order == [1, 2, 1, 3, 1, 4]
    assert scheduler.choose([1]) == 1
    scheduler.close()
    assert closed == ["huge"]


def test_only_a_few_stay_open_and_the_others_are_not_forgotten():
    scheduler = FileScheduler()
    closed: list[str] = []
    for number in range(MOST_OPEN + 2):
        scheduler.suspend(number, begun(closed, str(number)))
    assert closed == ["0", "1"]
    assert scheduler.choose(range(MOST_OPEN + 2)) == 0
    assert scheduler.resume(0) is None
    scheduler.close()
    assert len(closed) == MOST_OPEN + 2


def test_what_waits_no_more_is_closed():
    scheduler = FileScheduler()
    closed: list[str] = []
    scheduler.suspend(1, begun(closed, "1"))
    assert scheduler.choose([2]) == 2
    assert closed == ["1"]
    assert scheduler.choose([]) is None


def test_among_new_files_the_first_to_come_is_the_first():
    waiting = dict.fromkeys([7, 3, 5])
    assert FileScheduler().choose(waiting) == 7
