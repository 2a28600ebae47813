"""When to look at the drop directory: file system events as hints, the clock as the guarantee."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType

import watchfiles

_log = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1, 2, 5, 10, 30)


class Wakeups:
    """A thread that sets `event` whenever something changes below the directory.

    An event may be late, or never come (overflow, network file systems): whoever waits also looks at
    the clock. Watching that fails is begun anew, with growing pauses, and each time counts as a change.
    """

    def __init__(self, directory: Path, event: threading.Event) -> None:
        self._directory = directory
        self._event = event
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="semid-watch", daemon=True)

    def __enter__(self) -> Wakeups:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                # No filter: the default one hides names that producers may well use.
                for _ in watchfiles.watch(
                    self._directory,
                    watch_filter=None,
                    stop_event=self._stop,
                    debounce=100,
                    step=50,
                    rust_timeout=1000,
                    raise_interrupt=False,
                ):
                    failures = 0
                    self._event.set()
            except Exception as error:
                # The watcher dies of a name that is not UTF-8, of a missing root, of the system's watch
                # limit: none of them loses a file, the periodic scan finds them all.
                pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                level = logging.WARNING if failures == 0 else logging.DEBUG
                _log.log(level, "%s: watching failed (%s); scanning by the clock meanwhile", self._directory, error)
                failures += 1
                self._event.set()
                self._stop.wait(pause_s)
