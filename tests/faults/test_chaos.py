"""The chaos run of benchmarks/chaos.py, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.tools import benchmark

pytestmark = pytest.mark.slow


def test_a_few_kills_and_nothing_disagrees(tmp_path: Path):
    assert benchmark("chaos").chaos(tmp_path, kills=5, seed=7) == []
