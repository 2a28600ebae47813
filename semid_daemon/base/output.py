"""Where output may go."""

from __future__ import annotations

import stat
from pathlib import Path

from semid_daemon.base.errors import ConfigError


def refuse_special(path: Path) -> None:
    """Raises ConfigError where a file written to `path` would replace a link, FIFO or device, or be called "-"."""
    if str(path) == "-":
        raise ConfigError("-: output goes to a file, whole or not at all; name it, as ./- if that is its name")
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise ConfigError(f"{path}: is {kind}, which output would replace; name a file of its own")
