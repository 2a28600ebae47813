"""What a process takes from its surroundings: the umask and the working directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_OTHERS = 0o027  # nothing for others, no writing for the group


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Files made during the block cannot be read by others, nor written by the group; a stricter umask stays."""
    before = os.umask(_OTHERS)
    os.umask(before | _OTHERS)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def working_directory(directory: Path) -> Iterator[None]:
    """Work in a directory that exists; `/` where that one cannot be entered. Afterwards the former one where it can be.

    Intel's MKL, which torch computes with, ends the process where the working directory is gone or may not be read.
    """
    try:
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        before = None
    try:
        try:
            os.chdir(directory)
        except OSError:
            os.chdir("/")
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.fchdir(before)
            os.close(before)
