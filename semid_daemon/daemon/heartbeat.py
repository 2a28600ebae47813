"""The heartbeat: the daemon's state once a second, with what must not wait for long work to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from semid_daemon.daemon.command_server import CommandFiles
from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.runtime.events import EventLog

COMMANDS_S = 0.2  # a command waits no longer than that to be read


class Heartbeat:
    """The loop calls `beat` between the steps of long work. It writes the state, makes `checks`, and collects commands.

    It returns at once: commands are answered, and a pause is kept, by the loop. `checks` are made once a second;
    `summary` says how far the work is.
    """

    def __init__(
        self,
        events: EventLog,
        notifier: Notifier,
        commands: CommandFiles,
        checks: Sequence[Callable[[], object]],
        summary: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._notifier = notifier
        self._commands = commands
        self._checks = checks
        self._summary = summary
        self._now = now
        self._state = ("starting", "")
        self._collect_again = 0.0

    def say(self, state: str, detail: str = "") -> None:
        """Set the state that is written from now on."""
        self._state = (state, detail)

    @contextlib.contextmanager
    def saying(self, state: str, detail: str = "") -> Iterator[None]:
        """The state during the block; afterwards it is again what it was."""
        before, self._state = self._state, (state, detail)
        try:
            yield
        finally:
            self._state = before

    def beat(self) -> None:
        """Write the state and make the checks when that is due, and collect command files."""
        state, detail = self._state
        if self._events.write_heartbeat(state, detail):
            for check in self._checks:
                check()
            self._notifier.alive(f"{f'{state}: {detail}' if detail else state}, {self._summary()}")
        if self._now() >= self._collect_again:
            self._commands.collect()
            self._collect_again = self._now() + COMMANDS_S

    def stopped(self) -> None:
        """The last heartbeat."""
        self._events.write_heartbeat("stopped")
