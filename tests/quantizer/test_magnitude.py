"""Rows of any finite magnitude and offset: codes of a float64 loop, and trainings that stay finite."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.codebooks.baseline import measure_baseline
from semid_daemon.quantizer import (
    CandidateState,
    ContinualTrainer,
    Encoder,
    LloydTrainer,
    neighbours,
    quantization_errors,
)
from tests.quantizer.test_encoding import beam_loop, loop

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
MAGNITUDES = [1e-44, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e6, 1e18, 1e20, 1e30, 5e37]


def trained(rows_ND: FloatArray, normalize: bool, device: torch.device = CPU, size: int = 16, **options) -> Codebooks:
    trainer = LloydTrainer(
        n_layers=3,
        n_clusters=size,
        normalize_residuals=normalize,
        seed=1,
        device=device,
        iterations=30,
        tolerance=1e-4,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few distinct rows, biases beyond float32
        losses = [step.loss for step in trainer.train(rows_ND)]
    assert np.isfinite(losses).all()
    return trainer.codebooks


def clustered_rows(count: int, dim: int = 8) -> FloatArray:
    random = np.random.default_rng(0)
    centres_KD = random.normal(size=(24, dim))
    return (centres_KD[random.integers(24, size=count)] + 0.3 * random.normal(size=(count, dim))).astype(np.float32)


def distinct_ids(codebooks: Codebooks, rows_ND: FloatArray, device: torch.device = CPU) -> int:
    return len(np.unique(Encoder(codebooks, device).encode(rows_ND), axis=0))


def assert_codes_of_the_loop(rows_ND: FloatArray, codebooks: Codebooks, device: torch.device) -> None:
    expected_NL, tied_N = loop(rows_ND, codebooks)
    for one_pass in (True, False, None):
        codes_NL = Encoder(codebooks, device, one_pass=one_pass).encode(rows_ND)
        np.testing.assert_array_equal(codes_NL[~tied_N], expected_NL[~tied_N])


def assert_finite(codebooks: Codebooks, rows_ND: FloatArray, device: torch.device) -> None:
    """Everything that is computed of rows, by any path, is a finite number."""
    assert np.isfinite(codebooks.centroids_LKD).all()
    encoder = Encoder(codebooks, device)
    codes_NL = encoder.encode(rows_ND)
    assert np.isfinite(quantization_errors(codebooks, rows_ND, codes_NL, device)).all()
    baseline = measure_baseline(encoder, rows_ND, len(rows_ND))
    assert baseline.is_finite
    for nearest_QC in neighbours(rows_ND, 8, device):
        assert nearest_QC.shape[1] == 10
    state = CandidateState(codebooks.centroids_LKD, baseline.counts_LK)
    step = ContinualTrainer(codebooks, trained_rows=len(rows_ND), forgetting=0.1, seed=0, device=device).learn(
        state, rows_ND
    )
    assert np.isfinite(step.state.centroids_LKD).all()
    assert np.isfinite(step.losses).all()


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_training_finds_at_any_magnitude_what_it_finds_at_one(
    device: torch.device, normalize: bool, magnitude: float
):
    rows_ND = clustered_rows(600)
    expected = distinct_ids(trained(rows_ND, normalize, device), rows_ND, device)
    scaled_ND = (rows_ND * np.float64(magnitude)).astype(np.float32)
    codebooks = trained(scaled_ND, normalize, device)
    assert_codes_of_the_loop(scaled_ND, codebooks, device)
    assert_finite(codebooks, scaled_ND, device)
    if magnitude > 1e-40:  # below, few bits of the values are left
        assert distinct_ids(codebooks, scaled_ND, device) > 0.95 * expected


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("options", [{}, {"balanced": True}, {"beam_width": 4}], ids=str)
@pytest.mark.parametrize("magnitude", [1e20, 3e38])
def test_one_huge_row_takes_nothing_from_the_others(
    device: torch.device, normalize: bool, options: dict, magnitude: float
):
    rows_ND = clustered_rows(600)
    expected = distinct_ids(trained(rows_ND, normalize, device, **options), rows_ND, device)
    rows_ND[7] = magnitude * np.sign(rows_ND[7])
    codebooks = trained(rows_ND, normalize, device, **options)
    assert_finite(codebooks, rows_ND, device)
    assert distinct_ids(codebooks, rows_ND, device) > 0.8 * expected  # it has a code of its own in every layer at most


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("offset", [1e6, 1e7])
def test_a_large_common_offset(device: torch.device, offset: float):
    rows_ND = (10 * clustered_rows(2000) + offset).astype(np.float32)
    codebooks = trained(rows_ND, False, device)
    codes_NL = Encoder(codebooks, device).encode(rows_ND)
    assert all(len(np.unique(codes_N)) == 16 for codes_N in codes_NL.T)
    assert_codes_of_the_loop(rows_ND, codebooks, device)
    assert_finite(codebooks, rows_ND, device)
    shifted_ND = rows_ND.astype(np.float64) - offset
    plain = trained(shifted_ND.astype(np.float32), False, device)
    plain_NL = Encoder(plain, device).encode(shifted_ND.astype(np.float32))
    errors = quantization_errors(codebooks, rows_ND, codes_NL, device).mean()
    best = quantization_errors(plain, shifted_ND.astype(np.float32), plain_NL, device).mean()
    assert errors < 1.15 * best


def test_a_huge_centroid_does_not_blur_the_others():
    """Ties are those of the centroids near a row, not of the longest one."""
    random = np.random.default_rng(0)
    centroids_LKD = random.normal(size=(2, 9, 4)).astype(np.float32)
    centroids_LKD[0, 3] = 1e20
    rows_ND = random.normal(size=(100, 4)).astype(np.float32)
    for width in (1, 3):
        codes_NL = Encoder(Codebooks(centroids_LKD, False, None, width), CPU).encode(rows_ND)
        assert codes_NL.tolist() == [beam_loop(row, Codebooks(centroids_LKD, False, None, width)) for row in rows_ND]


@pytest.mark.parametrize("normalize", [True, False])
def test_balanced_codebooks_of_equal_rows(normalize: bool):
    row_D = clustered_rows(1)[0]
    codebooks = trained(np.tile(row_D, (200, 1)), normalize, balanced=True)
    expected_D = row_D / np.linalg.norm(row_D) if normalize else row_D
    np.testing.assert_allclose(codebooks.centroids_LKD[0], np.tile(expected_D, (16, 1)), rtol=1e-5)


@st.composite
def any_rows(draw: st.DrawFn) -> FloatArray:
    """Rows as they are after reading: of magnitudes from subnormal to the largest, values rounded to a dtype first."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.integers(1, 12))
    exponents = draw(st.lists(st.floats(-44, 37.9), min_size=1, max_size=4))
    dtype = draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    rows_ND = 10.0 ** random.choice(exponents, size=(64, 1)) * random.uniform(-3, 3, size=(64, dim))
    rows_ND = _rounded(rows_ND, dtype)
    return rows_ND[np.isfinite(rows_ND).all(axis=1)]


def _rounded(rows_ND: npt.NDArray[np.float64], dtype: str) -> FloatArray:
    if dtype == "bfloat16":
        return torch.from_numpy(rows_ND).bfloat16().float().numpy()
    with np.errstate(over="ignore"):
        return rows_ND.astype(dtype).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES, ids=str)
@seed(19)
@settings(deadline=None, max_examples=80)
@given(
    rows_ND=any_rows(),
    normalize=st.booleans(),
    balanced=st.booleans(),
    beam_width=st.sampled_from([1, 3]),
    offset=st.sampled_from([0.0, 1e3, 1e7]),
)
def test_whatever_rows_arrive(device, rows_ND, normalize, balanced, beam_width, offset):
    rows_ND = rows_ND + np.float32(offset)
    if len(rows_ND) < 16:
        return
    codebooks = trained(rows_ND, normalize, device, size=4, balanced=balanced, beam_width=beam_width)
    assert_finite(codebooks, rows_ND, device)
    if codebooks.biases_LK is not None:
        assert np.isfinite(codebooks.biases_LK).all()
    assert_codes_of_the_loop(rows_ND, Codebooks(codebooks.centroids_LKD, normalize), device)
