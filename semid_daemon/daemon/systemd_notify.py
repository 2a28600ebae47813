"""What a service manager hears from the daemon: systemd's notification protocol, sd_notify(3), over its socket.

Without $NOTIFY_SOCKET everything here does nothing. A manager that does not listen is no reason to stop the work.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

_FEEDINGS = 4  # WATCHDOG=1 is sent four times per timeout
_EXTENSION_S = 60.0  # asked for, again and again, while starting or stopping takes long


class Notifier:
    """`alive` is called by the loop that works, and only by it: a loop that hangs starves the watchdog.

    `step_s` is how long one step may keep the loop from calling (`ingest.watchdog_s`): the manager is told to wait
    that much longer than its unit says. 0: a step may take for ever, and the manager is left to its own setting.
    """

    def __init__(
        self,
        step_s: float = 0.0,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step_s = step_s
        self._now = now
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._watchdog_s = 0.0
        with contextlib.suppress(ValueError):
            self._watchdog_s = max(0, int(environment.get("WATCHDOG_USEC", "0"))) / 1e6 if ours else 0.0
        self._ready = False
        self._stopping = False
        self._status = ""
        self._fed_at = self._extended_at = -float("inf")

    def alive(self, status: str) -> None:
        """The loop goes round, and this is what it does. Cheap enough for every step: repetitions are not sent."""
        now = self._now()
        lines = []
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={' '.join(status.split())}")
        if self._ready and self._watchdog_s and now - self._fed_at >= self._watchdog_s / _FEEDINGS:
            self._fed_at = now
            lines.append("WATCHDOG=1")
        if (not self._ready or self._stopping) and now - self._extended_at >= _EXTENSION_S / _FEEDINGS:
            self._extended_at = now
            lines.append(f"EXTEND_TIMEOUT_USEC={int((_EXTENSION_S + self._step_s) * 1e6)}")
        self._send(lines)

    def ready(self) -> None:
        """The database is up to date, the drop directory was looked at: whoever waits for the daemon may go on."""
        if self._ready:
            return
        self._ready = True
        lines = ["READY=1"]
        if self._watchdog_s and self._step_s:
            self._watchdog_s += self._step_s
            lines.append(f"WATCHDOG_USEC={int(self._watchdog_s * 1e6)}")
        self._send(lines)

    def stopping(self) -> None:
        """The daemon ends, once the step in hand is done."""
        if not self._stopping:
            self._stopping = True
            self._extended_at = -float("inf")
            self._send(["STOPPING=1"])

    def close(self) -> None:
        """Nothing more is sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: list[str]) -> None:
        if self._socket is not None and lines:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
