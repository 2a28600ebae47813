"""The fuzzing of benchmarks/fuzz_formats.py, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.tools import benchmark


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_files_are_read_or_refused(tmp_path: Path, seed: int):
    counts, faults = benchmark("fuzz_formats").fuzz(2_500, seed, tmp_path / "input")
    assert faults == []
    assert counts.total() == 2_500
