"""The `semid` command as users run it: real processes, and in this process where that is enough."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from semid_daemon.cli.main import main

# Run as a user's shell would, but with this interpreter.
SEMID = [sys.executable, "-m", "semid_daemon"]


def semid(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SEMID, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=environment())


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "SEMID_CONFIG"}


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start_daemon(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SEMID, "run", "-c", root / "semid.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)


def query(root: Path, sql: str) -> list[tuple]:
    connection = sqlite3.connect(f"{(root / 'state' / 'semid.db').as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def items(root: Path) -> int:
    return query(root, "SELECT count(*) FROM semantic_ids")[0][0]
