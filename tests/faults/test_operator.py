"""Faults that operators and their machines bring about: commands, owners, places, settings, leftovers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from semid_daemon.config import Config
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import (
    assert_sound_after_restart,
    live,
    query,
    semid,
    trained_catalogue,
    wait_until,
)


@pytest.fixture
def trained(tmp_path: Path, clustered: Rows) -> Config:
    """A catalogue with a generation and 70 items; looks every 0.2 s and retries soon."""
    return trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.2"))


def test_fault_67_a_number_beyond_64_bits(trained: Config):
    """a command with a number beyond 64 bits: answered, consumed, and nobody sends one by mistake"""
    for number, generation in enumerate([1 << 63, -(1 << 64), 10**400]):
        request = {"command": "promote", "arguments": {"generation": generation}}
        (trained.commands_dir / f"{number}.json").write_text(json.dumps(request))
    with live(trained):
        wait_until(lambda: not os.listdir(trained.commands_dir))
    answers = query(trained, "SELECT state, answer FROM commands ORDER BY rowid")
    assert [state for state, _ in answers] == ["failed"] * 3
    assert all("there is no generation" in answer for _, answer in answers)
    for command in (["promote", str(1 << 63)], ["compare", "1", str(1 << 64)]):
        refused = semid(*command, "-c", trained.root / "semid.toml")
        assert refused.returncode == 2
        assert "not in the range" in refused.stderr
    assert_sound_after_restart(trained, 70)


@pytest.mark.slow
def test_fault_67_thousands_of_commands(trained: Config, clustered: Rows):
    """thousands of command files, links and FIFOs among them: consumed, while files have their turns"""
    for number in range(2_000):
        path = trained.commands_dir / f"{number:05}.json"
        if number % 7 == 0:
            os.symlink("/dev/zero", path)
        elif number % 7 == 1:
            os.mkfifo(path)
        else:
            path.write_text('{"command": "rescan", "arguments": {}}' if number % 7 < 4 else "?" * number)
    with live(trained):
        drop_npz(trained.drop_dir, "b.npz", ids("b", 30), clustered(30, 16))
        wait_until(lambda: not (trained.drop_dir / "b.npz").exists())
        wait_until(lambda: not os.listdir(trained.commands_dir), timeout_s=300)
    assert_sound_after_restart(trained, 100)
