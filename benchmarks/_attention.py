"""A daemon that is watched from outside while it works: its memory, its heartbeat, and how soon it answers."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from semid_daemon.base.types import FloatArray
from semid_daemon.command_client import send_command, wait_for_answer
from semid_daemon.config import Config, load_config


@contextlib.contextmanager
def trained_catalogue(base_ND: FloatArray) -> Iterator[Config]:
    """A catalogue in a temporary directory, trained on these rows and nothing else."""
    with tempfile.TemporaryDirectory(prefix="semid-watched-") as directory:
        root = Path(directory)
        (root / "semid.toml").write_text('[quantizer]\ncodebook_size = 64\ndevice = "cpu"\n')
        config = load_config(root / "semid.toml")
        config.drop_dir.mkdir()
        np.save(config.drop_dir / "base.npy", base_ND)
        subprocess.run([*_command(config), "--once"], check=True)
        yield config


def _command(config: Config) -> list[str]:
    return [sys.executable, "-m", "semid_daemon", "run", "-q", "-c", str(config.root / "semid.toml")]


class Attention:
    """The worst of what was seen: megabytes resident, seconds since a heartbeat, seconds until an answer."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._daemon: subprocess.Popen[bytes] | None = None
        self.most_mb = self.oldest_s = self.longest_s = 0.0

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """A daemon over the catalogue, until the block ends."""
        self._daemon = subprocess.Popen(_command(self._config))
        try:
            yield
        finally:
            self._daemon.terminate()
            self._daemon.wait()

    def see_memory(self) -> None:
        assert self._daemon is not None
        self.most_mb = max(self.most_mb, _resident_mb(self._daemon.pid))

    def see_heartbeat(self, beat_at: str) -> None:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(beat_at)).total_seconds()
        self.oldest_s = max(self.oldest_s, age_s)

    def ask(self, command: str, arguments: dict[str, Any]) -> None:
        """Send a command and wait for its answer."""
        asked = time.monotonic()
        name = send_command(self._config.commands_dir, command, arguments)
        if wait_for_answer(self._config.database, name, 60) is None:
            raise SystemExit("a command was not answered within a minute")
        self.longest_s = max(self.longest_s, time.monotonic() - asked)

    def __str__(self) -> str:
        return (
            f"at most {self.most_mb:.0f} MB resident, heartbeat {self.oldest_s:.1f} s old,"
            f" a command answered after {self.longest_s:.1f} s"
        )


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
