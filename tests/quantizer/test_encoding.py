"""Codes are those of a plain float64 loop: for every form, shape, device, chunking and neighbour of a row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.quantizer import Encoder, encoding
from semid_daemon.quantizer.reference import encode_exact

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
FORMS = [True, False]


def loop(rows_ND: npt.ArrayLike, codebooks: Codebooks) -> tuple[CodeArray, npt.NDArray[np.bool_]]:
    """The codes by the definition, row by row in float64, and which rows have a tie within float64 rounding."""
    codes, ties = [], []
    for row in np.asarray(rows_ND, dtype=np.float64):
        residual, row_codes, tie = row, [], False
        for centroids_KD in codebooks.centroids_LKD.astype(np.float64):
            norm = np.linalg.norm(residual)
            if codebooks.normalize_residuals and norm > 0:
                residual = residual / norm
            distances_K = ((residual - centroids_KD) ** 2).sum(axis=1)
            code = int(distances_K.argmin())
            others = np.delete(distances_K, code)
            tie |= bool(others.min() - distances_K[code] < 1e-13 * (1 + distances_K[code]))
            row_codes.append(code)
            residual = residual - centroids_KD[code]
        codes.append(row_codes)
        ties.append(tie)
    return np.array(codes, dtype=np.int32).reshape(-1, codebooks.layers), np.array(ties, dtype=bool)


def codebooks_for(rows_ND: FloatArray, layers: int, size: int, normalize: bool, seed: int = 0) -> Codebooks:
    """Residual codebooks whose centroids are near the residuals' own places, as trained ones are."""
    random = np.random.default_rng(seed)
    residual_ND = rows_ND.astype(np.float64)
    centroids = []
    for _ in range(layers):
        if normalize:
            norms = np.linalg.norm(residual_ND, axis=1, keepdims=True)
            residual_ND = residual_ND / np.where(norms > 0, norms, 1)
        picked = residual_ND[random.integers(len(rows_ND), size=size)]
        centroids_KD = 0.7 * picked + 0.05 * random.normal(size=picked.shape) / picked.shape[1] ** 0.5
        centroids.append(centroids_KD.astype(np.float32))
        scores_NK = (centroids_KD**2).sum(1) - 2 * residual_ND @ centroids_KD.T
        residual_ND = residual_ND - centroids_KD[scores_NK.argmin(axis=1)]
    return Codebooks(np.stack(centroids), normalize)


def rows(count: int, dim: int, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    centres_KD = random.normal(size=(12, dim))
    return (centres_KD[random.integers(12, size=count)] + random.normal(size=(count, dim))).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("one_pass", FORMS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("dim", "size", "layers"), [(1, 4, 2), (3, 2, 4), (48, 16, 3), (200, 300, 2), (96, 64, 1)])
def test_codes_are_those_of_the_loop(
    device: torch.device, one_pass: bool, normalize: bool, dim: int, size: int, layers: int
):
    rows_ND = rows(600, dim)
    codebooks = codebooks_for(rows_ND, layers, size, normalize)
    codes_NL = Encoder(codebooks, device, one_pass=one_pass).encode(rows_ND)
    expected_NL, tied_N = loop(rows_ND, codebooks)
    assert codes_NL.dtype == np.int32
    np.testing.assert_array_equal(codes_NL[~tied_N], expected_NL[~tied_N])
    assert tied_N.mean() < (0.9 if dim == 1 else 0.01)  # in one dimension every later residual is +1 or -1


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 20),
    size=st.integers(2, 9),
    layers=st.integers(1, 4),
    normalize=st.booleans(),
    one_pass=st.booleans(),
    magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e25]),
)
def test_codes_are_those_of_the_loop_for_any_shape(seed, dim, size, layers, normalize, one_pass, magnitude):
    random = np.random.default_rng(seed)
    rows_ND = (magnitude * random.normal(size=(40, dim))).astype(np.float32)
    rows_ND[::7] = 0
    scale = 1.0 if normalize else magnitude
    codebooks = Codebooks((scale * random.normal(size=(layers, size, dim))).astype(np.float32), normalize)
    codes_NL = Encoder(codebooks, CPU, one_pass=one_pass).encode(rows_ND)
    expected_NL, tied_N = loop(rows_ND, codebooks)
    np.testing.assert_array_equal(codes_NL[~tied_N], expected_NL[~tied_N])


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("one_pass", FORMS)
def test_rows_beside_their_centroids(device: torch.device, one_pass: bool):
    """Residuals a thousandth of the row and less: where the one-pass form cancels, and only the guard knows."""
    random = np.random.default_rng(3)
    centroids_KD = random.normal(size=(32, 64)).astype(np.float32)
    wrong_unguarded = 0
    for distance in (1e-2, 1e-3, 1e-4, 1e-6, 1e-7):
        near_ND = centroids_KD[random.integers(32, size=400)] + distance * random.normal(size=(400, 64)).astype(
            np.float32
        )
        inner = random.normal(size=(2, 32, 64)).astype(np.float32)
        for normalize in (True, False):
            first = centroids_KD
            if normalize:
                first = centroids_KD / np.linalg.norm(centroids_KD, axis=1, keepdims=True)
            rest = inner if normalize else distance * inner
            codebooks = Codebooks(np.concatenate([first[None], rest]).astype(np.float32), normalize)
            encoder = Encoder(codebooks, device, one_pass=one_pass)
            expected_NL, tied_N = loop(near_ND, codebooks)
            np.testing.assert_array_equal(encoder.encode(near_ND)[~tied_N], expected_NL[~tied_N])
            codes_NL, flagged_N = encoder._encode_fast(torch.from_numpy(near_ND).to(device))
            wrong_N = (codes_NL.cpu().numpy() != expected_NL).any(axis=1) & ~tied_N
            assert not (wrong_N & ~flagged_N.cpu().numpy()).any()
            wrong_unguarded += int(wrong_N.sum())
    assert wrong_unguarded > 0, "the test no longer reaches what the guard is for"


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("one_pass", FORMS)
@pytest.mark.parametrize("normalize", [True, False])
def test_ties_go_to_the_lowest_code(device: torch.device, one_pass: bool, normalize: bool):
    """Repeated centroids, a zero row, and rows exactly between two centroids."""
    centroids_KD = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    codebooks = Codebooks(np.stack([centroids_KD, centroids_KD]), normalize)
    rows_ND = np.array([[0, 2], [2, 0], [3, 3], [0, 0], [-2, 2]], dtype=np.float32)
    codes_NL = Encoder(codebooks, device, one_pass=one_pass).encode(rows_ND)
    assert codes_NL[:, 0].tolist() == [0, 1, 0, 0, 0]


def test_four_points_worked_by_hand():
    """Layer 0 tells left from right, layer 1 what is left over: -1 or +1."""
    codebooks = Codebooks(np.array([[[-10.0], [10.0]], [[-1.0], [1.0]]], dtype=np.float32), False)
    rows_ND = np.array([[-11.0], [-9.0], [9.0], [11.0]], dtype=np.float32)
    assert Encoder(codebooks, CPU).encode(rows_ND).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("one_pass", [*FORMS, None])
def test_neither_order_nor_chunks_nor_threads_change_a_code(
    device: torch.device, one_pass: bool | None, monkeypatch: pytest.MonkeyPatch
):
    rows_ND = rows(3000, 40)
    codebooks = codebooks_for(rows_ND, 3, 32, True)
    encoder = Encoder(codebooks, device, one_pass=one_pass)
    codes_NL = encoder.encode(rows_ND)
    order = np.random.default_rng(5).permutation(len(rows_ND))
    np.testing.assert_array_equal(encoder.encode(rows_ND[order]), codes_NL[order])
    for size in (1, 7, 1000):
        parts = [encoder.encode(rows_ND[start : start + size]) for start in range(0, 700, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:700], codes_NL[:700])
    monkeypatch.setitem(encoding._TILE_BYTES, device.type, 1)
    np.testing.assert_array_equal(encoder.encode(rows_ND), codes_NL)
    threads = torch.get_num_threads()
    try:
        for other in (1, 3):
            torch.set_num_threads(other)
            np.testing.assert_array_equal(encoder.encode(rows_ND), codes_NL)
    finally:
        torch.set_num_threads(threads)


def test_several_threads_may_share_an_encoder():
    rows_ND = rows(4000, 32)
    encoder = Encoder(codebooks_for(rows_ND, 3, 64, True), CPU)
    expected_NL = encoder.encode(rows_ND)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        for codes_NL in pool.map(encoder.encode, [rows_ND] * 12):
            np.testing.assert_array_equal(codes_NL, expected_NL)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(len(DEVICES) == 1, reason="no CUDA device")
@pytest.mark.parametrize("normalize", [True, False])
def test_cuda_gives_the_codes_of_the_cpu(normalize: bool, popular):
    _, rows_ND = popular
    codebooks = codebooks_for(rows_ND, 3, 256, normalize)
    expected_NL = Encoder(codebooks, CPU).encode(rows_ND)
    for one_pass in FORMS:
        np.testing.assert_array_equal(Encoder(codebooks, DEVICES[1], one_pass=one_pass).encode(rows_ND), expected_NL)


@pytest.mark.parametrize("normalize", [True, False])
def test_real_embeddings(normalize: bool, popular):
    _, rows_ND = popular
    codebooks = codebooks_for(rows_ND, 3, 256, normalize)
    exact_NL = encode_exact(
        torch.from_numpy(rows_ND).double(), torch.from_numpy(codebooks.centroids_LKD).double(), normalize
    )
    for one_pass in FORMS:
        encoder = Encoder(codebooks, CPU, one_pass=one_pass)
        np.testing.assert_array_equal(encoder.encode(rows_ND), exact_NL.numpy())
        _, flagged_N = encoder._encode_fast(torch.from_numpy(rows_ND))
        assert flagged_N.float().mean() < 0.01, "the guard sends too many rows to the slow path"


@pytest.mark.parametrize("normalize", [True, False])
def test_where_centroids_cannot_be_packed(normalize: bool, popular, monkeypatch):
    _, rows_ND = popular
    codebooks = codebooks_for(rows_ND, 3, 256, normalize)
    expected_NL = Encoder(codebooks, CPU, one_pass=False).encode(rows_ND)
    monkeypatch.setattr(encoding, "can_pack", lambda device: False)
    encoder = Encoder(codebooks, CPU, one_pass=True)
    assert not encoder._packed
    np.testing.assert_array_equal(encoder.encode(rows_ND), expected_NL)


def test_more_layers_never_raise_the_error():
    """Without normalization, and with a zero centroid in every layer: to stay is always possible."""
    rows_ND = rows(500, 24)
    codebooks = codebooks_for(rows_ND, 5, 16, False)
    centroids_LKD = codebooks.centroids_LKD.copy()
    centroids_LKD[:, 0] = 0
    codes_NL = Encoder(Codebooks(centroids_LKD, False), CPU).encode(rows_ND)
    residual_ND = rows_ND.astype(np.float64)
    errors = [np.square(residual_ND).sum(axis=1)]
    for centroids_KD, codes_N in zip(centroids_LKD, codes_NL.T, strict=True):
        residual_ND = residual_ND - centroids_KD[codes_N]
        errors.append(np.square(residual_ND).sum(axis=1))
    for fewer, more in zip(errors, errors[1:], strict=False):
        assert (more <= fewer * (1 + 1e-9)).all()


def test_no_rows_and_wrong_dimensions():
    encoder = Encoder(Codebooks(np.ones((2, 4, 3), dtype=np.float32), True), CPU)
    assert encoder.encode(np.empty((0, 3), dtype=np.float32)).shape == (0, 2)
    with pytest.raises(ValueError, match="dim 3"):
        encoder.encode(np.ones((2, 4), dtype=np.float32))


def beam_loop(row: npt.ArrayLike, codebooks: Codebooks) -> list[int]:
    """The beam search by its definition: every continuation of every partial code, the least costly kept."""
    residual = np.asarray(row, dtype=np.float64)
    if codebooks.normalize_residuals and np.linalg.norm(residual) > 0:
        residual = residual / np.linalg.norm(residual)
    beam: list[tuple[float, list[int], npt.NDArray[np.float64]]] = [(0.0, [], residual)]
    biases_LK = np.zeros(codebooks.centroids_LKD.shape[:2]) if codebooks.biases_LK is None else codebooks.biases_LK
    for centroids_KD, biases_K in zip(codebooks.centroids_LKD.astype(np.float64), biases_LK, strict=True):
        longer = []
        for penalty, codes, left in beam:
            scale = np.linalg.norm(left) if codebooks.normalize_residuals else 1.0
            for code, centroid in enumerate(centroids_KD):
                rest = left - scale * centroid
                bias = penalty + scale**2 * float(biases_K[code])
                longer.append((rest @ rest + bias, bias, [*codes, code], rest))
        longer.sort(key=lambda each: each[0])
        beam = [(bias, codes, rest) for _, bias, codes, rest in longer[: codebooks.beam_width]]
    return beam[0][1]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_beam_search_and_biases(device: torch.device, width: int, biased: bool, normalize: bool):
    rows_ND = rows(60, 12)
    plain = codebooks_for(rows_ND, 3, 9, normalize)
    biases_LK = np.random.default_rng(2).normal(scale=0.3, size=(3, 9)).astype(np.float32) if biased else None
    codebooks = Codebooks(plain.centroids_LKD, normalize, biases_LK, width)
    codes_NL = Encoder(codebooks, device).encode(rows_ND)
    assert codes_NL.tolist() == [beam_loop(row, codebooks) for row in rows_ND]


@pytest.mark.parametrize("normalize", [True, False])
def test_a_wider_beam_lowers_the_error(normalize: bool, popular):
    _, rows_ND = popular
    rows_ND = rows_ND[:300]
    plain = codebooks_for(rows_ND, 3, 64, normalize)
    errors = []
    for width in (1, 4, 16):
        codebooks = Codebooks(plain.centroids_LKD, normalize, None, width)
        residual_ND = rows_ND.astype(np.float64)
        for centroids_KD, codes_N in zip(plain.centroids_LKD, Encoder(codebooks, CPU).encode(rows_ND).T, strict=True):
            scale_N1 = np.linalg.norm(residual_ND, axis=1, keepdims=True) if normalize else 1.0
            residual_ND = residual_ND - scale_N1 * centroids_KD[codes_N]
        errors.append(np.square(residual_ND).sum(axis=1).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.99 * errors[0]


def test_out_of_memory_halves_the_rows(monkeypatch: pytest.MonkeyPatch):
    rows_ND = rows(1000, 16)
    encoder = Encoder(codebooks_for(rows_ND, 2, 8, True), CPU)
    expected_NL = encoder.encode(rows_ND)
    at_once, sizes = encoder._encode_at_once, []

    def little_memory(chunk_ND: torch.Tensor) -> torch.Tensor:
        sizes.append(len(chunk_ND))
        if len(chunk_ND) > 300:
            raise torch.OutOfMemoryError("no memory for so many rows")
        return at_once(chunk_ND)

    monkeypatch.setattr(encoder, "_encode_at_once", little_memory)
    np.testing.assert_array_equal(encoder.encode(rows_ND), expected_NL)
    assert sizes == [1000, 500, 250, 250, 500, 250, 250]
    monkeypatch.setattr(encoder, "_encode_at_once", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(MemoryError, match="does not suffice for 63 rows: none"):
        encoder.encode(rows_ND)
