"""Samples of rows: all of them where they fit, else every row equally often, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from semid_daemon.base.types import FloatArray
from semid_daemon.codebooks.sampling import RowSample, max_sample_rows

ROWS_ND = np.arange(20, dtype=np.float32).reshape(10, 2)


def sampled(max_rows: int, seed: int = 0, batch_rows: int = 3) -> FloatArray:
    sample = RowSample(total_rows=10, max_rows=max_rows, dim=2, seed=seed)
    for start in range(0, 10, batch_rows):
        sample.add(ROWS_ND[start : start + batch_rows])
    assert sample.rows_seen == 10
    return sample.rows()


@pytest.mark.parametrize("max_rows", [10, 11])
def test_all_rows_where_they_fit(max_rows: int):
    np.testing.assert_array_equal(sampled(max_rows), ROWS_ND)


@pytest.mark.parametrize("batch_rows", [1, 4, 10])
def test_the_sample_does_not_depend_on_the_batches(batch_rows: int):
    np.testing.assert_array_equal(sampled(4, batch_rows=batch_rows), sampled(4))


def test_every_row_is_drawn_equally_often_and_in_order():
    drawn = np.array([sampled(4, seed)[:, 0] / 2 for seed in range(2_000)], dtype=int)
    assert (np.diff(drawn, axis=1) > 0).all()
    counts = np.bincount(drawn.ravel(), minlength=10)
    # Each is drawn with probability 0.4: 800 times, standard deviation 22.
    assert abs(counts - 800).max() < 5 * 22


def test_fewer_and_more_rows_than_announced():
    fewer = RowSample(total_rows=10, max_rows=10, dim=2, seed=0)
    fewer.add(ROWS_ND[:3])
    np.testing.assert_array_equal(fewer.rows(), ROWS_ND[:3])
    more = RowSample(total_rows=4, max_rows=4, dim=2, seed=0)
    more.add(ROWS_ND)
    np.testing.assert_array_equal(more.rows(), ROWS_ND[:4])
    assert more.rows_seen == 10


def test_rows_that_fit_by_hand():
    assert max_sample_rows(dim=128, max_memory_mb=1, beam_width=1) == 1024  # 1 MiB / (2 copies × 512 bytes)
    assert max_sample_rows(dim=128, max_memory_mb=1, beam_width=4) == 512
    assert max_sample_rows(dim=65_536 * 4, max_memory_mb=1, beam_width=4) == 1
