"""Ends a daemon whose device hangs: only a new process gets out of a call that never returns."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from semid_daemon.base.errors import SemidError

T = TypeVar("T")

_log = logging.getLogger("semid")
EXIT_HUNG = 70  # EX_SOFTWARE


class Watchdog:
    """`watch` a call: when it takes longer than `limit_s`, the process says where it hangs and ends. 0: never.

    Nothing is lost by that: a chunk is committed as a whole or not at all. `before_end` is called first: it
    clears the marker of the current file, which is not to blame for the device.

    A thread of Python's looks at the time. A call that holds the interpreter's lock stops that thread too: behind it
    stands faulthandler's timer, which needs no lock, prints every thread's traceback to stderr and ends the process
    with exit status 1. The thread sets the timer anew while it runs, so that the timer runs out only without it.
    """

    def __init__(
        self,
        limit_s: float,
        end: Callable[[int], object] = os._exit,
        *,
        before_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._limit_s = limit_s
        self._interval_s = min(1.0, limit_s / 4)
        self._end = end
        self._before_end = before_end
        self._watched: dict[object, tuple[float, str]] = {}  # deadline and what, by call: there may be several at once
        self._timer_lock = threading.Lock()
        self._timer_is_set = self._has_ended = False
        if limit_s:
            threading.Thread(target=self._run, name="semid-watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        call = object()
        self._watched[call] = time.monotonic() + self._limit_s, what
        if self._limit_s:
            self._keep_timer(only_if_unset=True)
        try:
            yield
        finally:
            del self._watched[call]

    def each(self, items: Iterator[T], what: str) -> Iterator[T]:
        """The items; making each of them is watched."""
        while True:
            with self.watch(what):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            deadline, what = min(self._watched.copy().values(), default=(float("inf"), ""))
            if time.monotonic() > deadline:
                break
            self._keep_timer()
        self._has_ended = True
        _log.error("%s: no end after %g s; the daemon ends, start it again", what, self._limit_s)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed
            faulthandler.dump_traceback(sys.stderr)
        with contextlib.suppress(OSError, SemidError):
            self._before_end()
        self._end(EXIT_HUNG)
        self._keep_timer()

    def _keep_timer(self, *, only_if_unset: bool = False) -> None:
        """Set the timer anew while a call is watched, and cancel it otherwise. There is one in a process."""
        with self._timer_lock:
            if self._watched and not self._has_ended:
                if not (only_if_unset and self._timer_is_set):
                    seconds = self._limit_s + 2 * self._interval_s
                    faulthandler.dump_traceback_later(seconds, exit=True, file=_standard_error())
                    self._timer_is_set = True
            elif self._timer_is_set:
                faulthandler.cancel_dump_traceback_later()
                self._timer_is_set = False


def _standard_error() -> int:
    """The descriptor of stderr; without one the text goes where nobody reads it."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return 2
