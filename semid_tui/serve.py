"""`semid-tui --serve`: the terminal UI in a browser, through textual-serve, on loopback, read-only."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from semid_daemon.base.errors import ConfigError

HOST = "127.0.0.1"


def served_command(config_path: Path, refresh_s: float) -> str:
    """The command line of the process that serves one visitor."""
    return shlex.join(
        [sys.executable, "-m", "semid_tui", "--readonly", "--refresh", f"{refresh_s:g}", "-c", str(config_path)]
    )


def serve_readonly(config_path: Path, port: int, refresh_s: float) -> None:
    """Serve until interrupted. Raises ConfigError where textual-serve is not installed, or the port cannot be had."""
    if importlib.util.find_spec("textual_serve") is None:
        raise ConfigError("--serve: needs textual-serve; install it with `pip install 'semid[serve]'`")
    from textual_serve.server import Server

    try:
        Server(served_command(config_path, refresh_s), host=HOST, port=port, title="semid").serve()
    except OSError as error:
        raise ConfigError(f"--serve: {HOST}:{port}: {error.strerror or error}; choose another --port") from error
