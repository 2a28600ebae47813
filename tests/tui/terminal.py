"""A real pseudo-terminal with a screen, for running the terminal UI as a user does."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte


class Terminal:
    """`semid-tui` in a process of its own, on a pseudo-terminal; what it writes is drawn on `screen`."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.written_bytes = 0
        self.ends_alternate = 0  # how often the screen of before was brought back
        self.started_s = time.perf_counter()
        controller, worker = os.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX", "COLORTERM")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "semid_tui", "-c", str(config), *arguments],
            stdin=worker,
            stdout=worker,
            stderr=worker,
            start_new_session=True,
            env={**kept, "TERM": "xterm-256color", **(environment or {})},
        )
        os.close(worker)
        self._descriptor = controller

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self._descriptor)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def read(self, seconds: float) -> bytes:
        """Draw what comes within so long."""
        until = time.perf_counter() + seconds
        taken = b""
        while True:
            left = until - time.perf_counter()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return taken
            try:
                data = os.read(self._descriptor, 1 << 16)
            except OSError:  # the process has ended
                return taken
            self.written_bytes += len(data)
            self.ends_alternate += data.count(b"\x1b[?1049l")
            self._stream.feed(data)
            taken += data

    def until(self, condition: Callable[[], object], timeout_s: float = 30) -> float:
        """Read until something is so; how long it took."""
        started = time.perf_counter()
        while not condition():
            assert time.perf_counter() - started < timeout_s, f"timed out; on the screen:\n{self.text}"
            self.read(0.005)
        return time.perf_counter() - started

    def ends(self, timeout_s: float = 60) -> int:
        """Read until the process has ended (it could not write its last words otherwise); its exit status."""
        self.until(lambda: self.process.poll() is not None, timeout_s)
        self.read(0.2)
        return int(self.process.returncode)

    def sees(self, *texts: str, timeout_s: float = 30) -> float:
        return self.until(lambda: all(text in self.text for text in texts), timeout_s)
