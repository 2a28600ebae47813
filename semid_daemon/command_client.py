"""Commands to the daemon: small JSON files renamed into the commands directory.

The same mechanism as a drop file: it works across users by the directory's permissions, and a command
waits while the daemon is down. Standard library only.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

from semid_daemon.base.atomic_file import atomic_write_text
from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import ConfigError
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import StatusQueries

Arguments = dict[str, Any]


def send_command(directory: Path, command: str, arguments: Arguments) -> str:
    """Put a command where the daemon finds it, and return the name by which its answer is known.

    Raises ConfigError when the directory is not there or may not be written to.
    """
    request = {
        "command": command,
        "arguments": arguments,
        "requested_at": utc_now(),
    }
    name = f"{time.time_ns():020}-{uuid.uuid4().hex[:12]}.json"
    try:
        atomic_write_text(directory / name, json.dumps(request))
    except OSError as error:
        raise ConfigError(
            f"{directory}: a command cannot be put there: {error.strerror};"
            " the directory is made by `semid init` or `semid run`, and must be writable to who asks"
        ) from error
    return name


def wait_for_answer(database: Path, name: str, timeout_s: float = 5.0) -> tuple[str, str] | None:
    """State and answer of a command once it was carried out; None when that takes longer than `timeout_s`."""
    until = time.monotonic() + timeout_s
    with ReadConnection(database) as connection:
        queries = StatusQueries(connection)
        while True:
            found = queries.command_answer(name)
            if found is not None and found[0] != "accepted":
                return found
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
