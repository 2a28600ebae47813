"""The spool: what is read is what was written, rounded; what no transaction names is written over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.errors import StoreError
from semid_daemon.codebooks.spool import Spool

ROWS_ND = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
NAMES = ["a", "é", "c\n", "d", ""]


def test_read_again(tmp_path: Path):
    spool = Spool(tmp_path / "spool", None)
    record = spool.append(NAMES, ROWS_ND)
    names, rows_ND = spool.read(record)
    assert names == NAMES
    np.testing.assert_array_equal(rows_ND, ROWS_ND.astype(np.float16))


@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_values_that_float16_cannot_hold_stay_float32(tmp_path: Path, factor: float):
    spool = Spool(tmp_path, None)
    rows_ND = ROWS_ND * np.float32(factor)
    np.testing.assert_array_equal(spool.read(spool.append(NAMES, rows_ND))[1], rows_ND)


def test_what_was_not_committed_is_written_over(tmp_path: Path):
    spool = Spool(tmp_path, None)
    first = spool.append(["a"], ROWS_ND[:1])
    spool.committed(first)
    spool.append(NAMES, ROWS_ND)
    again = Spool(tmp_path, first)  # as after a crash
    second = again.append(["b"], ROWS_ND[1:2])
    assert second.first_byte == first.size_bytes
    assert (tmp_path / "000000.rows").stat().st_size == first.size_bytes + second.size_bytes
    assert again.read(first)[0] == ["a"]
    assert again.read(second)[0] == ["b"]


def test_segments(tmp_path: Path):
    spool = Spool(tmp_path, None, segment_bytes=100)
    records = []
    for number in range(4):
        records.append(spool.append([str(number)], ROWS_ND[:1]))
        spool.committed(records[-1])
    assert len(list(tmp_path.iterdir())) == len({record.segment for record in records}) > 1
    assert [spool.read(record)[0] for record in records] == [["0"], ["1"], ["2"], ["3"]]


def test_damage_is_told(tmp_path: Path):
    spool = Spool(tmp_path, None)
    record = spool.append(NAMES, ROWS_ND)
    path = tmp_path / "000000.rows"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        spool.read(record)
    path.write_bytes(content[:20])
    with pytest.raises(StoreError, match="too short"):
        spool.read(record)
    with pytest.raises(StoreError, match="shorter than what was committed"):
        Spool(tmp_path, record).append(NAMES, ROWS_ND)
    path.unlink()
    with pytest.raises(StoreError, match="missing"):
        spool.read(record)
