"""The other implementations, each behind one function: codebooks to an encoder, or rows to codebooks.

FAISS and scikit-learn come with the extra `bench`, flash-kmeans by hand on a machine with CUDA. A peer that
is not installed is left out of the tables.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.quantizer import Device

HAS_FAISS = importlib.util.find_spec("faiss") is not None
HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None
HAS_FLASH = importlib.util.find_spec("flash_kmeans") is not None and torch.cuda.is_available()

Encode = Callable[[FloatArray], CodeArray]
EncodeTensor = Callable[[Tensor], Tensor]
FitLayer = Callable[[FloatArray, int], FloatArray]
"""(residuals N×D, layer) -> centroids K×D."""

_TORCH_TILE_BYTES = 1 << 30


def set_threads(threads: int) -> None:
    """The same number of threads for everyone."""
    torch.set_num_threads(threads)
    if HAS_FAISS:
        import faiss

        faiss.omp_set_num_threads(threads)
    if HAS_SKLEARN:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


# Encoders


def faiss_residual_quantizer(codebooks: Codebooks, beam: int, lookup_tables: bool) -> Encode:
    """FAISS's ResidualQuantizer with our codebooks (it knows no normalization)."""
    return _faiss_encode(_loaded_residual_quantizer(codebooks, lookup_tables), beam)


def faiss_chain(codebooks: Codebooks) -> Encode:
    """An exact index per layer, and the residuals in between in NumPy."""
    import faiss

    indexes = []
    for centroids_KD in codebooks.centroids_LKD:
        index = faiss.IndexFlatL2(codebooks.dim)
        index.add(np.ascontiguousarray(centroids_KD))
        indexes.append(index)
    return _chain(codebooks, [lambda rows_ND, index=index: index.search(rows_ND, 1)[1][:, 0] for index in indexes])


def sklearn_chain(codebooks: Codebooks) -> Encode:
    """MiniBatchKMeans.predict per layer, and the residuals in between in NumPy."""
    from sklearn.cluster import MiniBatchKMeans

    models = []
    for centroids_KD in codebooks.centroids_LKD:
        model = MiniBatchKMeans(codebooks.codebook_size, init=centroids_KD, n_init=1, max_iter=1)
        model.fit(centroids_KD)  # for the attributes that predict() asks for
        model.cluster_centers_ = np.ascontiguousarray(centroids_KD)
        models.append(model)
    return _chain(codebooks, [model.predict for model in models])


def grid_formula(codebooks: Codebooks, device: Device, chunk_bytes: int) -> tuple[EncodeTensor, int]:
    """GRID's distances, by broadcasting to N×K×D; and the rows of a chunk, which takes about `chunk_bytes`."""
    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)
    chunk_rows = max(1, chunk_bytes // (4 * codebooks.codebook_size * codebooks.dim))

    def encode(rows_ND: Tensor) -> Tensor:
        return torch.cat([encode_chunk(chunk_ND) for chunk_ND in rows_ND.split(chunk_rows)])

    def encode_chunk(residual_ND: Tensor) -> Tensor:
        codes = []
        for centroids_KD in centroids_LKD:
            codes_N = (residual_ND[:, None] - centroids_KD[None]).pow(2).sum(-1).argmin(dim=1)
            residual_ND = residual_ND - centroids_KD[codes_N]
            codes.append(codes_N)
        return torch.stack(codes, dim=1)

    return encode, chunk_rows


def torch_loop(codebooks: Codebooks, device: Device, tf32: bool) -> EncodeTensor:
    """The plain loop over the layers: a product, an argmax, the residual."""
    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)
    half_squares_LK = centroids_LKD.square().sum(dim=2) / 2
    tile_rows = max(1, _TORCH_TILE_BYTES // (4 * codebooks.codebook_size))

    def encode(rows_ND: Tensor) -> Tensor:
        with matmul_precision(tf32):
            return torch.cat([encode_tile(tile_ND) for tile_ND in rows_ND.split(tile_rows)])

    def encode_tile(residual_ND: Tensor) -> Tensor:
        codes = []
        for centroids_KD, half_squares_K in zip(centroids_LKD, half_squares_LK, strict=True):
            codes_N = torch.addmm(-half_squares_K, residual_ND, centroids_KD.T).argmax(dim=1)
            codes.append(codes_N)
            if len(codes) < codebooks.layers:
                residual_ND = residual_ND - centroids_KD[codes_N]
        return torch.stack(codes, dim=1)

    return encode


def flash_chain(codebooks: Codebooks, device: Device) -> EncodeTensor:
    """flash-kmeans's assignment kernel per layer, and the residuals in between in torch."""
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)

    def encode(rows_ND: Tensor) -> Tensor:
        residual_ND, codes = rows_ND, []
        for centroids_KD in centroids_LKD:
            squares_N = torch.linalg.vector_norm(residual_ND, dim=1).square_()
            codes_N = euclid_assign_triton(residual_ND[None], centroids_KD[None], squares_N[None])[0]
            codes.append(codes_N)
            if len(codes) < codebooks.layers:
                residual_ND = residual_ND - centroids_KD[codes_N.long()]
        return torch.stack(codes, dim=1)

    return encode


# Trainers


def train_faiss_residual_quantizer(
    rows_ND: FloatArray, layers: int, size: int, beam: int, progressive: bool
) -> tuple[Codebooks, Encode]:
    """FAISS's ResidualQuantizer as it comes, but for the beam; `progressive` is what its constructor sets."""
    import faiss

    quantizer = faiss.ResidualQuantizer(rows_ND.shape[1], layers, _bits(size))
    quantizer.max_beam_size = beam
    quantizer.use_beam_LUT = 0
    quantizer.cp.min_points_per_centroid = 1  # with fewer it only warns
    quantizer.train_type = quantizer.Train_progressive_dim if progressive else quantizer.Train_default
    quantizer.train(rows_ND)
    centroids_LKD = faiss.vector_to_array(quantizer.codebooks).reshape(layers, size, -1).copy()
    return Codebooks(centroids_LKD, normalize_residuals=False), _faiss_encode(quantizer, beam)


def faiss_kmeans(size: int) -> FitLayer:
    """faiss.Kmeans with its defaults and another seed for every layer."""
    import faiss

    def fit(rows_ND: FloatArray, layer: int) -> FloatArray:
        kmeans = faiss.Kmeans(rows_ND.shape[1], size, seed=1234 + layer, min_points_per_centroid=1)
        kmeans.train(rows_ND)
        return np.asarray(kmeans.centroids).copy()

    return fit


def sklearn_kmeans(size: int) -> FitLayer:
    """scikit-learn's MiniBatchKMeans with its defaults and another seed for every layer."""
    from sklearn.cluster import MiniBatchKMeans

    def fit(rows_ND: FloatArray, layer: int) -> FloatArray:
        return MiniBatchKMeans(size, random_state=layer).fit(rows_ND).cluster_centers_.astype(np.float32)

    return fit


def flash_kmeans(size: int) -> FitLayer:
    """flash-kmeans from random rows, until its centroids rest or for a hundred iterations."""
    from flash_kmeans import batch_kmeans_Euclid

    def fit(rows_ND: FloatArray, layer: int) -> FloatArray:
        torch.manual_seed(layer)
        rows_1ND = torch.from_numpy(rows_ND).cuda()[None]
        return batch_kmeans_Euclid(rows_1ND, size, max_iters=100, tol=1e-4)[1][0].cpu().numpy()

    return fit


def train_chain(rows_ND: FloatArray, layers: int, normalize: bool, fit: FitLayer) -> Codebooks:
    """One k-means per layer, each on what the layers before it left over."""
    residual_ND, centroids = rows_ND.copy(), []
    for layer in range(layers):
        if normalize:
            residual_ND /= np.maximum(np.linalg.norm(residual_ND, axis=1, keepdims=True), 1e-12)
        centroids_KD = fit(residual_ND, layer)
        centroids.append(centroids_KD)
        if layer + 1 < layers:
            residual_ND -= centroids_KD[_nearest(residual_ND, centroids_KD)]
    return Codebooks(np.stack(centroids), normalize)


# What they share


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    """float32 products on CUDA in TF32, or in full."""
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _nearest(rows_ND: FloatArray, centroids_KD: FloatArray) -> CodeArray:
    half_squares_K = np.square(centroids_KD).sum(axis=1) / 2
    step = max(64, (1 << 22) // len(centroids_KD))
    return np.concatenate(
        [
            (rows_ND[start : start + step] @ centroids_KD.T - half_squares_K).argmax(axis=1)
            for start in range(0, len(rows_ND), step)
        ]
    )


def _chain(codebooks: Codebooks, nearest_of: list[Callable[[FloatArray], Any]]) -> Encode:
    def encode(rows_ND: FloatArray) -> CodeArray:
        residual_ND, codes = rows_ND, []
        for nearest, centroids_KD in zip(nearest_of, codebooks.centroids_LKD, strict=True):
            codes_N = nearest(residual_ND)
            codes.append(codes_N)
            if len(codes) < codebooks.layers:
                residual_ND = residual_ND - centroids_KD[codes_N]
        return np.stack(codes, axis=1)

    return encode


def _loaded_residual_quantizer(codebooks: Codebooks, lookup_tables: bool) -> Any:
    import faiss

    quantizer = faiss.ResidualQuantizer(codebooks.dim, codebooks.layers, _bits(codebooks.codebook_size))
    faiss.copy_array_to_vector(np.ascontiguousarray(codebooks.centroids_LKD).ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.use_beam_LUT = int(lookup_tables)
    if lookup_tables:
        quantizer.compute_codebook_tables()
    return quantizer


def _faiss_encode(quantizer: Any, beam: int) -> Encode:
    import faiss

    bits = quantizer.nbits.at(0)

    def encode(rows_ND: FloatArray) -> CodeArray:
        quantizer.max_beam_size = beam
        packed = quantizer.compute_codes(rows_ND)
        return packed if bits == 8 else faiss.unpack_bitstrings(packed, quantizer.M, bits)

    return encode


def _bits(size: int) -> int:
    bits = size.bit_length() - 1
    if 1 << bits != size:
        raise ValueError(f"FAISS's ResidualQuantizer takes powers of two, not {size} codes")
    return bits
