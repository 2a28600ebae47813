"""Reading a file that may have killed the daemon, in a process of its own: `python -m semid_daemon.trial`.

Readers are bounded and never execute what they read, so files are read in the daemon itself, at full
speed. A file that a process died with several times is first read through here, with limits on memory and time.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from semid_daemon.drop.reading import FileChangedError, open_drop_file
from semid_daemon.errors import BadFileError
from semid_daemon.failpoints import failpoint
from semid_daemon.formats import open_source
from semid_daemon.records import DropFile, Signature

MEMORY_BYTES = 4 << 30
_SECONDS = 120.0
_BYTES_PER_S = 5_000_000


def how_it_dies(file: DropFile, chunk_rows: int, tick: Callable[[], None]) -> str | None:
    """Read a file through in a process of its own; how that process died, or None when it did not.

    A file that is merely bad, or that changed, does not kill: its reason is found in the usual way.
    """
    given = [str(file.path), _numbers(file.signature), str(file.sidecar or ""), _numbers(file.sidecar_signature)]
    child = subprocess.Popen(
        [sys.executable, "-m", "semid_daemon.trial", json.dumps([file.name, *given, chunk_rows])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + _SECONDS + file.signature.size_bytes / _BYTES_PER_S
    try:
        while True:
            try:
                status = child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                tick()
                if time.monotonic() > until:
                    return "it does not come to an end"
    finally:
        child.kill()
        child.wait()
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}" if status else None


def _numbers(signature: Signature | None) -> list[int] | None:
    if signature is None:
        return None
    return [signature.device, signature.inode, signature.size_bytes, signature.mtime_ns, signature.ctime_ns]


def read_through(argument: str) -> None:
    """What the child does: open the file as it was settled, and read every row."""
    name, path, numbers, sidecar, sidecar_numbers, chunk_rows = json.loads(argument)
    file = DropFile(
        path=Path(path),
        name=name,
        signature=Signature(*numbers),
        sidecar=Path(sidecar) if sidecar else None,
        sidecar_signature=Signature(*sidecar_numbers) if sidecar_numbers else None,
    )
    with open_drop_file(file) as opened:
        failpoint("parsing")
        sidecar_name = file.sidecar.name if file.sidecar else ""
        source = open_source(opened.stream, file.name, sidecar=opened.sidecar, sidecar_name=sidecar_name)
        for _ in source.batches(chunk_rows):
            pass
        source.close()


if __name__ == "__main__":
    # Of data, not of address space: allocators reserve much that they never use.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        read_through(sys.argv[1])
    except (BadFileError, FileChangedError, OSError):
        sys.exit(0)
