"""What codes are worth: errors, next best codes and neighbours, against plain loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks
from semid_daemon.quantizer import (
    Encoder,
    LastCodeRanking,
    neighbours,
    quantization_errors,
    resolve_device,
    shared_prefixes,
)

CPU = resolve_device("cpu")


@pytest.fixture(scope="module", params=[True, False], ids=["normalized", "as they are"])
def trained(request):
    random = np.random.default_rng(0)
    codebooks = Codebooks(random.normal(size=(3, 8, 4)).astype(np.float32), request.param)
    rows_ND = random.normal(size=(50, 4)).astype(np.float32)
    return codebooks, rows_ND, Encoder(codebooks, CPU).encode(rows_ND)


def test_errors_are_what_the_codes_leave(trained):
    codebooks, rows_ND, codes_NL = trained
    errors_N = quantization_errors(codebooks, rows_ND, codes_NL, CPU)
    for row_D, codes_L, error in zip(rows_ND.astype(float), codes_NL, errors_N, strict=True):
        residual_D, scale, rebuilt_D = row_D, 1.0, np.zeros(4)
        for layer, code in enumerate(codes_L):
            if codebooks.normalize_residuals:
                norm = np.linalg.norm(residual_D)
                residual_D, scale = residual_D / norm, scale * norm
            rebuilt_D += scale * codebooks.centroids_LKD[layer, code]
            residual_D = residual_D - codebooks.centroids_LKD[layer, code]
        whole = np.square(row_D).sum() if codebooks.normalize_residuals else 1.0
        assert error == pytest.approx(np.square(row_D - rebuilt_D).sum() / whole, rel=1e-4)


def test_last_codes_come_in_order_of_distance(trained):
    codebooks, rows_ND, codes_NL = trained
    ranking = LastCodeRanking(codebooks)
    for row_D, codes_L in zip(rows_ND, codes_NL, strict=True):
        order = ranking.rank(row_D, codes_L)
        assert order[0] == codes_L[-1]
        assert sorted(order) == list(range(8))
        residual_D = row_D
        for layer, code in enumerate(codes_L[:-1]):
            residual_D = residual_D / np.linalg.norm(residual_D) if codebooks.normalize_residuals else residual_D
            residual_D = residual_D - codebooks.centroids_LKD[layer, code]
        residual_D = residual_D / np.linalg.norm(residual_D) if codebooks.normalize_residuals else residual_D
        distances_K = np.linalg.norm(residual_D - codebooks.centroids_LKD[-1], axis=1)
        assert np.all(np.diff(distances_K[order]) > -1e-5)


def test_neighbours_by_hand():
    """Four directions, two close pairs; lengths do not matter, and nobody is its own neighbour."""
    rows_ND = np.array([[1, 0], [5, 0.5], [0, 1], [0.2, 3]], np.float32)
    nearest = np.concatenate(list(neighbours(rows_ND, 4, CPU, count=1)))
    assert nearest[:, 0].tolist() == [1, 0, 3, 2]
    codes_NL = np.array([[0, 0], [0, 1], [1, 1], [1, 1]], np.int32)
    assert shared_prefixes(codes_NL, 0, nearest) == [1.0, 0.5]
    assert shared_prefixes(codes_NL, 2, nearest[2:]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="4 rows for 4 neighbours"):
        next(neighbours(rows_ND, 4, CPU, count=4))


def test_neighbours_are_those_of_a_plain_search(clustered):
    rows_ND = clustered(300, 6)
    found = np.concatenate(list(neighbours(rows_ND, 100, CPU)))
    unit_ND = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    similar_NN = unit_ND[:100] @ unit_ND.T
    similar_NN[np.arange(100), np.arange(100)] = -2
    expected = np.sort(similar_NN, axis=1)[:, -10:]
    np.testing.assert_allclose(np.sort(np.take_along_axis(similar_NN, found, axis=1), axis=1), expected, atol=1e-6)
