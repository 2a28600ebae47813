"""Long work in small steps, so that files, commands and the heartbeat get their turns in between."""

from __future__ import annotations

from collections.abc import Generator

from semid_daemon.runtime.context import WorkContext

Steps = Generator[None, None, None]  # a step takes about a second at most

_SLICE_S = 0.5


def run_slice(steps: Steps, context: WorkContext) -> bool:
    """Run steps for half a second or until the process is to end. True once all of them are done."""
    until = context.now() + _SLICE_S
    finished = object()
    while next(steps, finished) is not finished:
        if context.stop.is_set() or context.now() >= until:
            return False
    return True
