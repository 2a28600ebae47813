"""What must not wait for long work to end: the heartbeat, the lock, commands, and a pause that one of them asks for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.daemon.command_server import CommandServer
from semid_daemon.daemon.prometheus import MetricsFile
from semid_daemon.daemon.state_lock import Lock
from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.store import Store

COMMANDS_S = 0.2  # a command waits no longer than that


class Heartbeat:
    """Long-running work calls `beat` regularly. It blocks while the daemon is paused.

    `handlers` and `long_handlers` are those of the CommandServer; `summary` says how far the work is.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        notifier: Notifier,
        lock: Lock | None,
        stop: threading.Event,
        *,
        handlers: Mapping[str, Callable[[Arguments], str]],
        long_handlers: Mapping[str, Callable[[str, Arguments], str | None]],
        summary: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._events = events
        self._notifier = notifier
        self._lock = lock
        self._stop = stop
        self._summary = summary
        self._now = now
        self._commands = CommandServer(
            config.commands_dir, store, {**handlers, "pause": self._pause, "resume": self._resume}, long_handlers
        )
        self._metrics_file = MetricsFile(config, version("semid"), events, now)
        self._doing = ("starting", "")
        self._poll_again = 0.0
        self.is_undisturbed = False
        self._paused_at = store.daemon.paused_at()

    def doing(self, state: str, detail: str = "") -> None:
        """What the heartbeat says from now on."""
        self._doing = (state, detail)

    def poll(self) -> None:
        """Answer commands, whenever they were last looked for."""
        self._commands.poll()

    def beat(self) -> None:
        """The heartbeat, the lock, commands. While paused, nothing else."""
        if self.is_undisturbed:
            return
        self._look_up(*self._doing)
        while self._paused_at is not None and not self._stop.is_set():
            self._notifier.ready()
            self._look_up("paused", str(self.paused))
            self._stop.wait(COMMANDS_S)

    @contextlib.contextmanager
    def without_heartbeat(self) -> Iterator[None]:
        """Nothing is attended to meanwhile; for what takes a moment."""
        self.is_undisturbed = True
        try:
            yield
        finally:
            self.is_undisturbed = False

    def stopped(self) -> None:
        """The last heartbeat."""
        self._events.write_heartbeat("stopped")
        self._metrics_file.keep(at_once=True)

    def _look_up(self, state: str, detail: str) -> None:
        if self._events.write_heartbeat(state, detail):
            if self._lock is not None:
                self._lock.check()
            if self._stop.is_set():
                self._notifier.stopping()
            self._notifier.alive(f"{f'{state}: {detail}' if detail else state}, {self._summary()}")
            self._metrics_file.keep()
        if self._now() >= self._poll_again:
            self._commands.poll()
            self._poll_again = self._now() + COMMANDS_S

    # -- pausing -------------------------------------------------------------------------------------

    @property
    def paused(self) -> str | None:
        """Since when, and what to do about it; None while work goes on."""
        return None if self._paused_at is None else f"since {self._paused_at}; `semid resume` lets work go on"

    def _pause(self, arguments: Arguments) -> str:
        already = self._paused_at
        self._store.daemon.set_paused(True)
        self._paused_at = self._store.daemon.paused_at()
        if already is None:
            self._events.info("paused")
        return f"paused since {self._paused_at}" if already else "paused; nothing is lost, work goes on with `resume`"

    def _resume(self, arguments: Arguments) -> str:
        if self._paused_at is None:
            return "not paused"
        self._store.daemon.set_paused(False)
        self._paused_at = None
        self._events.info("resumed")
        return "work goes on"
