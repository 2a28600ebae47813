"""The daemon in this process, until a signal stops it or, with `once`, until the drop directory is handled."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator

from semid_daemon.base.process import working_directory
from semid_daemon.config import Config
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.state_lock import hold_state, make_directories
from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.runtime.logs import Form, form_of_log
from semid_daemon.runtime.progress import start_logging


def run_daemon(config: Config, *, once: bool, quiet: bool = False, form: Form | None = None) -> Outcome:
    """Run the daemon in this process until SIGTERM, SIGINT or SIGHUP; with `once`, until everything is handled.

    Raises SemidError: the state directory is held by another daemon, the database or the device cannot be used.
    """
    if sys.stderr is not None:
        faulthandler.enable()  # a supervisor's SIGABRT, too, leaves in the log where the daemon hung
    notifier = Notifier(config.ingest.watchdog_s)
    notifier.alive("starting")
    make_directories(config)
    stop = threading.Event()
    with (
        working_directory(config.root),
        contextlib.closing(notifier),
        hold_state(config.state_dir) as lock,
        _stop_signals(stop),
    ):
        progress = start_logging(form or form_of_log(), quiet=quiet)
        # Only now: torch takes seconds to import, and a second daemon should be refused at once.
        from semid_daemon.daemon.service import Service
        from semid_daemon.runtime.context import WorkContext
        from semid_daemon.runtime.gc_tuning import relaxed_gc
        from semid_daemon.store.write.store import Store

        with Store(config.database, notifier.alive) as store, relaxed_gc():
            return Service(config, store, progress, WorkContext(stop, once=once), lock, notifier).run()


@contextlib.contextmanager
def _stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP set `stop`; a second one takes its usual course.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    numbers = [signal.SIGTERM, signal.SIGINT]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
