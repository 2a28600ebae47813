"""What long work is given by the process that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


def _silent(state: str, detail: str = "") -> None:
    """Nobody reads the state."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at a time."""

    slice_s: float = 1.0  # of one kind of work, before the others have their turn
    together_s: float = 0.2  # of small files that end with one commit
    commit_s: float = 0.5  # of chunks that are committed at once, after which none is added
    patience_s: float = 0.2  # without an encoded chunk, before the daemon looks after other things
    first_pause_s: float = 1.0  # after the machine's first fault; doubles with each further one
    most_pending: int = 1_000  # files registered and not encoded, once there are codebooks
    chunk_bytes: int = 64 << 20  # of float32 embeddings in a chunk; a few chunks are in memory at a time


@dataclass(frozen=True, slots=True)
class WorkContext:
    """How long work learns that it should stop, tells the time, and shows that it lives.

    `stop` is set when the process should end. `now` is a monotonic clock in seconds. `say(state, detail)` sets the
    state that the next heartbeat shows. `once`: the process ends when all that lies there is handled.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], float] = time.monotonic
    say: Callable[..., None] = _silent
    once: bool = False
    limits: Limits = Limits()
