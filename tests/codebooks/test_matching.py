"""Matching: new codes get the numbers of the old ones they have most rows in common with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks
from semid_daemon.codebooks import matching
from semid_daemon.codebooks.matching import match_codebooks, match_codes, renumber
from semid_daemon.quantizer import Encoder, resolve_device

NEAR = np.zeros((3, 3), np.float32)


def test_by_hand():
    """New code 0 shares 3 rows with old 1 and 2 with old 2; new 1 shares 4 with old 1: 0 gives way."""
    old_N = np.array([1, 1, 1, 2, 2, 1, 1, 1, 1])
    new_N = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert match_codes(old_N, new_N, NEAR).tolist() == [2, 1, 0]


def test_codes_without_common_rows_go_by_distance():
    far_KK = np.array([[5, 5, 5], [9, 9, 1], [1, 9, 9]], np.float32)
    assert match_codes(np.array([1]), np.array([0]), far_KK).tolist() == [1, 2, 0]


def test_no_assignment_keeps_more_rows():
    random = np.random.default_rng(3)
    old_N, new_N = random.integers(0, 5, (2, 200))
    number_K = match_codes(old_N, new_N, random.random((5, 5)).astype(np.float32))
    kept = [(np.array(order)[new_N] == old_N).sum() for order in itertools.permutations(range(5))]
    assert (number_K[new_N] == old_N).sum() == max(kept)


def test_many_codes_are_matched_greedily(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matching, "MOST_EXACT", 2)
    old_N = np.array([1, 1, 1, 2, 2, 1, 1, 1, 1])
    new_N = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert match_codes(old_N, new_N, NEAR).tolist() == [2, 1, 0]


def test_the_same_codebooks_in_another_order_come_back(clustered):
    random = np.random.default_rng(0)
    old = Codebooks(random.normal(size=(2, 8, 6)).astype(np.float32), True, random.random((2, 8)).astype(np.float32))
    new = renumber(old, np.stack([random.permutation(8) for _ in range(2)]))
    rows_ND = clustered(300, 6)
    codes = [Encoder(codebooks, resolve_device("cpu")).encode(rows_ND) for codebooks in (new, old)]
    assert not np.array_equal(*codes)
    again = match_codebooks(new, old, *codes)
    np.testing.assert_array_equal(again.centroids_LKD, old.centroids_LKD)
    np.testing.assert_array_equal(again.biases_LK, old.biases_LK)
