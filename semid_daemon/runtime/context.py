"""What long work is given by the process that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from semid_daemon.base.types import Tick


def _silent(state: str, detail: str = "") -> None:
    """Nobody reads the state."""


@dataclass(frozen=True, slots=True)
class WorkContext:
    """How long work learns that it should stop, tells the time, and shows that it lives.

    `stop` is set when the process should end. `now` is a monotonic clock in seconds. `tick` is called at least
    once a second; it beats and collects requests, and returns at once. `say(state, detail)` sets the state that the
    next heartbeat shows.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], float] = time.monotonic
    tick: Tick = lambda: None
    say: Callable[..., None] = _silent
