"""Reading a file that may have killed the daemon, in a process of its own: `python -m semid_daemon.ingest.sandbox`.

Readers are bounded and never execute what they read, so files are read in the daemon itself, at full
speed. A file that a process died with several times is first read through here, with limits on memory and time.
"""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import astuple
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, FieldNames, Signature
from semid_daemon.base.errors import BadFileError
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.ingest.open_embeddings import open_embeddings

MEMORY_BYTES = 4 << 30
_SECONDS = 120.0
_BYTES_PER_S = 5_000_000
_MOST_TIMEOUTS = 3  # a disk may be slow for a while; from here on it is the file
_CANNOT, _NO_MEMORY, _UNEXPECTED = 1, 3, 4  # exit statuses; 1 is also Python's own, of a process that hardly began
_ENDED_FROM_OUTSIDE = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

_timeouts: Counter[tuple[str, Signature]] = Counter()


def crash_reason(file: DropFile, chunk_rows: int, patience_s: float = _SECONDS) -> Generator[None, None, str | None]:
    """Read a file through in a process of its own; how that process died, or None when it did not.

    A file that is merely bad, or that changed, does not kill: its reason is found in the usual way. The process has
    `patience_s`, and more for a large file. Closing the generator ends it.
    Raises FileChangedError when the process was interrupted and says nothing of the file: it is taken up anew.
    Raises OSError when the file cannot be tried just now.
    """
    given = [str(file.path), _numbers(file.signature), str(file.sidecar or ""), _numbers(file.sidecar_signature)]
    # A session of its own: ctrl-C is meant for the daemon.
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "semid_daemon.ingest.sandbox",
            json.dumps([file.name, *given, *astuple(file.fields), str(file.root or ""), chunk_rows]),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = yield from _wait(child, patience_s + file.signature.size_bytes / _BYTES_PER_S)
    finally:
        child.kill()
        child.wait()
    if status is not None and -status in _ENDED_FROM_OUTSIDE:
        raise FileChangedError(f"{file.name}: reading it in a process of its own was interrupted")
    if status is None:
        _timeouts[file.name, file.signature] += 1
        if _timeouts[file.name, file.signature] < _MOST_TIMEOUTS:
            raise OSError(errno.ETIMEDOUT, "reading it in a process of its own does not come to an end")
        return "it does not come to an end"
    _timeouts.pop((file.name, file.signature), None)
    if status == _NO_MEMORY:
        raise OSError(errno.ENOMEM, "out of memory, reading it in a process of its own")
    if status == _CANNOT:
        raise OSError(errno.ECHILD, "cannot be read in a process of its own: that process does not start")
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}" if status else None


def _wait(child: subprocess.Popen[bytes], seconds: float) -> Generator[None, None, int | None]:
    """The child's exit status; None when it took too long."""
    until = time.monotonic() + seconds
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                return None
            yield


def _numbers(signature: Signature | None) -> list[int] | None:
    if signature is None:
        return None
    return [signature.device, signature.inode, signature.size_bytes, signature.mtime_ns, signature.ctime_ns]


def read_all(argument: str) -> None:
    """What the child does: open the file as it was settled, and read every row."""
    name, path, numbers, sidecar, sidecar_numbers, vectors, item_ids, root, chunk_rows = json.loads(argument)
    file = DropFile(
        path=Path(path),
        name=name,
        signature=Signature(*numbers),
        sidecar=Path(sidecar) if sidecar else None,
        sidecar_signature=Signature(*sidecar_numbers) if sidecar_numbers else None,
        fields=FieldNames(vectors, item_ids),
        root=Path(root) if root else None,
    )
    with open_embeddings(file) as (_, source):
        for _batch in source.batches(chunk_rows):
            pass


if __name__ == "__main__":
    # Of data, not of address space: allocators reserve much that they never use.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        read_all(sys.argv[1])
    except (BadFileError, FileChangedError, OSError):
        sys.exit(0)
    except MemoryError:
        sys.exit(_NO_MEMORY)
    except ImportError:
        sys.exit(_CANNOT)
    except Exception:
        sys.exit(_UNEXPECTED)  # as in the daemon, which it would end
