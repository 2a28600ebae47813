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
    lets go of the file in hand, which is not to blame for the device.
    """

    def __init__(
        self,
        limit_s: float,
        end: Callable[[int], object] = os._exit,
        *,
        before_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._limit_s = limit_s
        self._end = end
        self._before_end = before_end
        self._watched: dict[object, tuple[float, str]] = {}  # deadline and what, by call: there may be several at once
        if limit_s:
            threading.Thread(target=self._run, name="semid-watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        call = object()
        self._watched[call] = time.monotonic() + self._limit_s, what
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
            time.sleep(min(1.0, self._limit_s / 4))
            deadline, what = min(self._watched.copy().values(), default=(float("inf"), ""))
            if time.monotonic() > deadline:
                _log.error("%s: no end after %g s; the daemon ends, start it again", what, self._limit_s)
                with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed
                    faulthandler.dump_traceback(sys.stderr)
                with contextlib.suppress(OSError, SemidError):
                    self._before_end()
                self._end(EXIT_HUNG)
                return
