"""The garbage collector while the daemon works."""

from __future__ import annotations

import gc

from semid_daemon.runtime.gc_tuning import relaxed_gc


def test_what_is_there_is_left_alone_and_the_rest_seldom_looked_at() -> None:
    before = gc.get_threshold()
    with relaxed_gc():
        assert gc.get_freeze_count() > 0
        looks = []
        gc.callbacks.append(lambda phase, info: looks.append(phase))
        try:
            kept = [(number,) for number in range(10_000)]
        finally:
            gc.callbacks.pop()
        assert len(kept) == 10_000
        assert looks == []
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
