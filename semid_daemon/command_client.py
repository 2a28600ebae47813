"""Asking the daemon: small JSON files renamed into the commands directory.

The same mechanism as a drop file: it works across users by the directory's permissions, and a command
waits while the daemon is down. Standard library only.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semid_daemon.base.errors import ConfigError
from semid_daemon.store.read.status import Reader

Arguments = dict[str, Any]


def submit(directory: Path, command: str, arguments: Arguments) -> str:
    """Put a command where the daemon finds it; the name by which its answer is known.

    Raises ConfigError when the directory is not there or may not be written to.
    """
    request = {
        "command": command,
        "arguments": arguments,
        "requested_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    name = f"{time.time_ns():020}-{uuid.uuid4().hex[:12]}.json"
    partial = directory / f".{name}.tmp"
    try:
        partial.write_text(json.dumps(request), encoding="utf-8")
        os.rename(partial, directory / name)
    except OSError as error:
        raise ConfigError(
            f"{directory}: a command cannot be put there: {error.strerror};"
            " the directory is made by `semid init` or `semid run`, and must be writable to who asks"
        ) from error
    return name


def answer_of(database: Path, name: str, timeout_s: float = 5.0) -> tuple[str, str] | None:
    """State and answer of a command once it was carried out; None when that takes too long."""
    until = time.monotonic() + timeout_s
    with Reader(database) as reader:
        while True:
            found = reader.command(name)
            if found is not None and found[0] != "accepted":
                return found
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
