"""Encoding: rows to codes, fast in float32 (float16 on CUDA) and decided in float64 where that cannot tell.

A row's code in a layer is the index of the nearest centroid; the residual goes on to the next layer,
L2-normalized first if the codebooks say so. With r the residual before it is normalized, rho its norm (1
when nothing is normalized), the nearest centroid is the one with the greatest

    t_k = r·c_k - rho ||c_k||² / 2,          and then  ||r - rho c||² = rho (rho - 2 t)  when normalized.

In the *one-pass* form r is never made: r·c_k = x·c_k - sum over the earlier layers j of rho_j <c_j, c_k>,
so one product of the rows with all layers' centroids (on the CPU one per layer, with centroids packed
once, so that scores stay in the cache), and tables of the inner products between codebooks, give every
layer's scores. In the *residual* form r is made, and costs a product per layer;
it is the better one where codebooks are much larger than rows are long.

Rounding is bounded per row as the layers go by. Where the two best scores of a layer are closer than the
bound, the row is flagged and encoded again with more precision, in the end by `ExactCodebooks`. So codes are
those of a float64 loop for every finite row, whatever the device, the chunk size, or the rows beside it. On CUDA
the one-pass form is a fused kernel with float16 products (`cuda_kernels`), and float32 takes the rows that it flags.
Without normalization, an offset that the first centroids have in common is subtracted from them and from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.quantizer.assign import best_two
from semid_daemon.quantizer.device import has_triton
from semid_daemon.quantizer.distance import full_float32_matmul
from semid_daemon.quantizer.matmul import PackedCentroids, can_pack, products
from semid_daemon.quantizer.reference import ExactCodebooks
from semid_daemon.quantizer.threads import for_each_span, threads_for

_EPS = float(np.finfo(np.float32).eps)
# The rounding of a float32 dot product of D terms has a standard deviation of about EPS sqrt(D) / 8 of
# the product of the norms; this is eight of them.
_DOT_SIGMAS = 1.0
_SMALLEST_NORM = 1e-12
_SMALLEST_MARGIN = 1e-30
# Tables of inner products between codebooks pay up to this many codes per dimension, and bytes.
_ONE_PASS_CODES_PER_DIM = 2.0
_ONE_PASS_TABLE_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}
# What goes to a device at a time, and what is too little to halve when its memory does not suffice.
_MOST_ROWS = {"cpu": 1 << 62, "cuda": 1 << 18, "mps": 1 << 16}
_FEWEST_ROWS = 64
_FEW_ROWS = 4096
_EXACT_PRODUCTS = 1 << 23
_LARGEST_HALF = float(np.finfo(np.float16).max)
# Large tiles make the matrix product fast; small pieces keep the scores in the cache for the passes that follow.
_TILE_BYTES = {"cpu": 12 << 20, "cuda": 1 << 29, "mps": 1 << 27}
_PIECE_BYTES = {"cpu": 2 << 20, "cuda": 1 << 29, "mps": 1 << 27}


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's centroids on the device, and what its scores need beside them."""

    centroids_KD: Tensor
    half_squares_K: Tensor  # ||c||² / 2
    reach: float  # the largest ||c||
    spread: float  # the largest difference between two ||c||² / 2


class Encoder:
    """Codebooks on a device, ready to encode. Safe to call from several threads."""

    def __init__(self, codebooks: Codebooks, device: torch.device, *, one_pass: bool | None = None) -> None:
        """`one_pass` chooses the form; by default it is what measures better for the codebooks' shape and the rows."""
        self.codebooks = codebooks
        self.device = device
        centroids_LKD = torch.from_numpy(codebooks.centroids_LKD.astype(np.float64)).to(device)
        self._exact = ExactCodebooks(centroids_LKD)
        biases_LK = codebooks.biases_LK
        self._biases64_LK = None
        if biases_LK is not None:
            self._biases64_LK = torch.from_numpy(biases_LK.astype(np.float64)).to(device)
        elif codebooks.beam_width > 1:
            self._biases64_LK = centroids_LKD.new_zeros(centroids_LKD.shape[:2])
        # The residual that the first layer leaves is the same: x - c = (x - offset) - (c - offset).
        self._offset_D: Tensor | None = None
        offset_D = self._exact.offsets[0]
        if offset_D is not None and not codebooks.normalize_residuals:
            centroids_LKD = torch.cat([centroids_LKD[:1] - offset_D, centroids_LKD[1:]])
            self._offset_D = offset_D.float()
        half_squares_LK = centroids_LKD.square().sum(dim=2) / 2
        self._layers = [
            _layer(centroids_KD, half_squares_K)
            for centroids_KD, half_squares_K in zip(centroids_LKD, half_squares_LK, strict=True)
        ]
        # In float64 a few rows on the CPU take half of the operations, each of which costs more than its arithmetic.
        self._exact_rows = 0
        if one_pass is None and device.type == "cpu":
            self._exact_rows = _EXACT_PRODUCTS // max(1, centroids_LKD.numel())
        self._one_pass = one_pass if one_pass is not None else _prefers_one_pass(codebooks, device)
        self._tables = _tables(centroids_LKD, half_squares_LK) if self._one_pass else []
        self._packed: list[PackedCentroids] = []
        self._all_centroids_WD: Tensor | None = None
        if self._one_pass and can_pack(device):
            self._packed = [PackedCentroids(layer.centroids_KD) for layer in self._layers]
        elif self._one_pass:
            self._all_centroids_WD = centroids_LKD.flatten(0, 1).float().contiguous()
        self._table_starts_L = (
            torch.arange(codebooks.layers, dtype=torch.int32, device=device) * codebooks.codebook_size
        )
        self._fused: _Fused | None = None
        if (
            self._one_pass
            and device.type == "cuda"
            and has_triton()
            and float(centroids_LKD.abs().max()) <= _LARGEST_HALF
        ):
            self._fused = _Fused(centroids_LKD, self._layers, self._tables, codebooks.normalize_residuals)
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def encode(self, embeddings_ND: FloatArray) -> CodeArray:
        """Codes (N×L int32) of embeddings (N×D float32, finite). Raises as `encode_tensor`."""
        return self.encode_copied(torch.from_numpy(np.ascontiguousarray(embeddings_ND)))

    def copy(self, embeddings_ND: FloatArray) -> Tensor:
        """Embeddings (N×D float32) on the device, for `encode_copied`; from another thread than that they overlap.

        On CUDA they go by a stream of their own, at full speed from pinned memory.
        """
        rows_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND))
        if self._copies is None:
            return rows_ND.to(self.device)
        with torch.cuda.stream(self._copies):
            copied_ND = rows_ND.to(self.device, non_blocking=True)
        self._copies.synchronize()
        return copied_ND

    def encode_copied(self, rows_ND: Tensor) -> CodeArray:
        """Codes (N×L int32) of rows that `copy` gave, which must live until this returns. Raises as `encode_tensor`."""
        chunks = torch.split(rows_ND, _MOST_ROWS[self.device.type])
        return torch.cat([self.encode_tensor(chunk_ND).cpu() for chunk_ND in chunks]).numpy()

    def encode_tensor(self, rows_ND: Tensor) -> Tensor:
        """Codes (N×L int32), on the encoder's device, of rows (N×D float32, finite) there or in the CPU's memory.

        Where the memory does not suffice for all rows at once, they are encoded in halves. Raises MemoryError when it
        does not suffice for a few, ValueError for rows of another dimension.
        """
        if rows_ND.ndim != 2 or rows_ND.shape[1] != self.codebooks.dim:
            raise ValueError(f"rows of shape {tuple(rows_ND.shape)} for codebooks of dim {self.codebooks.dim}")
        rows = rows_ND.shape[0]
        try:
            return self._encode_at_once(rows_ND.to(self.device))
        except (MemoryError, torch.OutOfMemoryError) as error:
            if rows < _FEWEST_ROWS:
                raise MemoryError(f"the device's memory does not suffice for {rows} rows: {error}") from error
        # Not in the handler: the failed attempt's tensors live as long as its exception does.
        torch.cuda.empty_cache()
        halves = torch.split(rows_ND, (rows + 1) // 2)
        return torch.cat([self.encode_tensor(half_ND) for half_ND in halves])

    def _encode_at_once(self, rows_ND: Tensor) -> Tensor:
        with torch.inference_mode(), full_float32_matmul(self.device):
            if self._biases64_LK is not None:
                normalize, beam_width = self.codebooks.normalize_residuals, self.codebooks.beam_width
                return self._exact.search(rows_ND.double(), self._biases64_LK, normalize, beam_width)
            if rows_ND.shape[0] <= self._exact_rows:
                return self._encode_float64(rows_ND)
            if self._fused is None:
                return self._encode_float32(rows_ND)
            codes_NL, flagged_N = self._fused.encode(self._without_offset(rows_ND))
            doubtful = flagged_N.nonzero()[:, 0]
            if doubtful.numel():
                # Few rows are sooner decided in float64 than handed through float32 first.
                few = doubtful.numel() <= _FEW_ROWS
                codes_NL[doubtful] = (self._encode_float64 if few else self._encode_float32)(rows_ND[doubtful])
            return codes_NL

    def _encode_float32(self, rows_ND: Tensor) -> Tensor:
        """Codes (N×L int32) by float32 scores, and by float64 for the rows that those cannot decide."""
        codes_NL, flagged_N = self._encode_fast(rows_ND)
        doubtful = flagged_N.nonzero()[:, 0]
        if doubtful.numel():
            codes_NL[doubtful] = self._encode_float64(rows_ND[doubtful])
        return codes_NL

    def _encode_float64(self, rows_ND: Tensor) -> Tensor:
        return self._exact.encode(rows_ND.double(), self.codebooks.normalize_residuals)

    def _without_offset(self, rows_ND: Tensor) -> Tensor:
        return rows_ND if self._offset_D is None else rows_ND - self._offset_D

    def _encode_fast(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N×L int32) by float32 scores, and the rows whose codes they cannot vouch for (N bool)."""
        codes_NL = torch.empty((rows_ND.shape[0], self.codebooks.layers), dtype=torch.int32, device=self.device)
        flagged_N = torch.zeros(rows_ND.shape[0], dtype=torch.bool, device=self.device)
        width = self.codebooks.codebook_size * (self.codebooks.layers if self._one_pass else 1)
        step = _even_step(rows_ND.shape[0], max(64, _TILE_BYTES[self.device.type] // (4 * width)), self.device)
        encode_tile = self._one_pass_tile if self._one_pass else self._residual_tile

        @torch.inference_mode()
        def encode_tiles(tiles: Sequence[slice]) -> None:
            scores_NW = _scratch((0 if self._packed else step, width), self.device)
            for tile in tiles:
                tile_ND = self._without_offset(rows_ND[tile])
                encode_tile(tile_ND, codes_NL[tile], flagged_N[tile], scores_NW[: tile.stop - tile.start])

        if rows_ND.shape[0]:
            for_each_span(self.device, rows_ND.shape[0], step, encode_tiles)
        return codes_NL, flagged_N

    def _one_pass_tile(self, rows_ND: Tensor, codes_NL: Tensor, flagged_N: Tensor, scores_NW: Tensor) -> None:
        if self._all_centroids_WD is not None:
            products(rows_ND, self._all_centroids_WD, scores_NW)
        rows, size = rows_ND.shape[0], self.codebooks.codebook_size
        piece = max(64, _PIECE_BYTES[self.device.type] // (4 * size))
        best_N, second_N = torch.empty((2, rows), device=self.device)
        guard = _Guard(rows_ND, self.codebooks.normalize_residuals)
        scales: list[Tensor] = []
        for index, layer in enumerate(self._layers):
            scales.append(guard.scale_N)
            weights_NJ = torch.stack(scales, dim=1)
            terms_NJ = pad(codes_NL[:, :index] + self._table_starts_L[:index], (0, 1), value=index * size)
            if self._packed:
                scores_NK = self._packed[index].products(rows_ND)
            else:
                scores_NK = scores_NW[:, index * size : (index + 1) * size]
            for start in range(0, rows, piece):
                span = slice(start, min(start + piece, rows))
                span_NK = scores_NK[span]
                if index == 0:
                    span_NK.addcmul_(weights_NJ[span], layer.half_squares_K, value=-1)
                else:
                    span_NK -= embedding_bag(
                        terms_NJ[span], self._tables[index], mode="sum", per_sample_weights=weights_NJ[span]
                    )
                codes_NL[span, index], best_N[span], second_N[span] = best_two(span_NK)
            flagged_N |= guard.doubts(best_N, second_N, layer)
            guard.go_on(best_N, layer)

    def _residual_tile(self, rows_ND: Tensor, codes_NL: Tensor, flagged_N: Tensor, scores_NW: Tensor) -> None:
        residual_ND = rows_ND
        guard = _Guard(rows_ND, self.codebooks.normalize_residuals)
        for index, layer in enumerate(self._layers):
            products(residual_ND, layer.centroids_KD, scores_NW)
            scores_NW.addcmul_(guard.scale_N[:, None], layer.half_squares_K, value=-1)
            codes_N, best_N, second_N = best_two(scores_NW)
            codes_NL[:, index] = codes_N
            flagged_N |= guard.doubts(best_N, second_N, layer)
            if index + 1 < len(self._layers):
                chosen_ND = layer.centroids_KD[codes_N]
                residual_ND = torch.addcmul(residual_ND, chosen_ND, guard.scale_N[:, None], value=-1)
                guard.go_on(best_N, layer)


class _Fused:
    """Codebooks (L×K×D float64, of values that float16 can hold) as the fused kernel takes them."""

    def __init__(
        self, centroids_LKD: Tensor, layers: list[_Layer], tables: list[Tensor], normalize_residuals: bool
    ) -> None:
        from semid_daemon.quantizer import cuda_kernels

        self._encode = cuda_kernels.encode_fused
        self._normalize = normalize_residuals
        device, size = centroids_LKD.device, centroids_LKD.shape[1]
        self._centroids16_LKD = centroids_LKD.half().contiguous()
        self._weights_LD = centroids_LKD.square().mean(dim=1).float().contiguous()
        self._half_squares_LK = torch.stack([layer.half_squares_K for layer in layers])
        self._reach_L = torch.tensor([layer.reach for layer in layers], device=device)
        self._spread_L = torch.tensor([layer.spread for layer in layers], device=device)
        tables_MK = torch.cat([table_MK[:-1] for table_MK in tables])
        self._tables_PKK = tables_MK.reshape(-1, size, size) if len(tables_MK) else torch.zeros(1, 1, 1, device=device)

    def encode(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N×L int32) by float16 scores, and the rows whose codes they cannot vouch for (N bool)."""
        codes_NL, flagged_N = self._encode(
            rows_ND.contiguous(),
            self._centroids16_LKD,
            self._half_squares_LK,
            self._tables_PKK,
            self._weights_LD,
            self._reach_L,
            self._spread_L,
            normalize_residuals=self._normalize,
        )
        return codes_NL, flagged_N


class _Guard:
    """What rounding may have done to a tile's scores so far, per row.

    `scale_N` is rho, `_scale_error_N` a bound on its relative error; `_drift_N` bounds the error of r·c for
    a centroid of norm 1. Bounds add up as the layers go by, and grow without limit where a residual
    becomes small beside its row: such rows are flagged at their next layer.
    """

    def __init__(self, rows_ND: Tensor, normalize: bool) -> None:
        norms_N = torch.linalg.vector_norm(rows_ND, dim=1)
        self._normalize = normalize
        self.scale_N = norms_N if normalize else torch.ones_like(norms_N)
        self._scale_error_N = torch.full_like(norms_N, _EPS * 4 if normalize else 0.0)
        drift_N = norms_N * (_DOT_SIGMAS * _EPS * max(4.0, rows_ND.shape[1] ** 0.5))
        # Squares of smaller values underflow: nothing is known of such a row.
        self._drift_N = torch.where(norms_N < _SMALLEST_NORM, torch.inf, drift_N)

    def doubts(self, best_N: Tensor, second_N: Tensor, layer: _Layer) -> Tensor:
        """Which rows' best and second-best scores are too close to be told apart."""
        scale_bound_N = self.scale_N * (self._scale_error_N + 2 * _EPS) * (layer.spread + 2 * _EPS * layer.reach**2)
        bound_N = self._drift_N * (2 * layer.reach) + scale_bound_N + best_N.abs() * (4 * _EPS) + _SMALLEST_MARGIN
        sure_N: Tensor = best_N - second_N > bound_N  # never of NaN
        return sure_N.logical_not()

    def go_on(self, best_N: Tensor, layer: _Layer) -> None:
        """Account for the residual that the chosen centroids leave."""
        scale_N, error_N = self.scale_N, self._scale_error_N
        self._drift_N = self._drift_N + scale_N * (error_N + 2 * _EPS) * layer.reach
        if not self._normalize:
            return
        squared_N = scale_N * (scale_N - 2.0 * best_N)
        squared_error_N = (
            2.0 * scale_N * (self._drift_N * layer.reach + scale_N * (error_N + 2 * _EPS) * (1.0 + layer.reach) ** 2)
        )
        squared_N = squared_N.clamp_min(1e-30)
        self.scale_N = squared_N.sqrt()
        self._scale_error_N = squared_error_N / (2.0 * squared_N) + _EPS


def _scratch(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Memory for float32; the CPU's from NumPy, which asks for huge pages, as torch does not by default."""
    return torch.from_numpy(np.empty(shape, np.float32)) if device.type == "cpu" else torch.empty(shape, device=device)


def _even_step(rows: int, most: int, device: torch.device) -> int:
    """Rows of a tile, at most so many, that give every thread as many tiles."""
    threads = threads_for(device)
    if rows <= _FEWEST_ROWS * threads:
        return max(1, rows)
    return math.ceil(rows / (threads * math.ceil(rows / (threads * most))))


def _layer(centroids_KD: Tensor, half_squares_K: Tensor) -> _Layer:
    return _Layer(
        centroids_KD=centroids_KD.float().contiguous(),
        half_squares_K=half_squares_K.float(),
        reach=float((2 * half_squares_K.max()).sqrt()),
        spread=float(half_squares_K.max() - half_squares_K.min()),
    )


def _tables(centroids_LKD: Tensor, half_squares_LK: Tensor) -> list[Tensor]:
    """For every layer l, <c_j, c_l> with the centroids of every earlier layer j, and ||c_l||² / 2 (l·K+1 rows × K)."""
    return [
        torch.cat([*(earlier_KD @ later_KD.T for earlier_KD in centroids_LKD[:layer]), half_squares_K[None]]).float()
        for layer, (later_KD, half_squares_K) in enumerate(zip(centroids_LKD, half_squares_LK, strict=True))
    ]


def _prefers_one_pass(codebooks: Codebooks, device: torch.device) -> bool:
    pairs = codebooks.layers * (codebooks.layers - 1) // 2
    table_bytes = 4 * pairs * codebooks.codebook_size**2
    if table_bytes > _ONE_PASS_TABLE_BYTES[device.type]:
        return False
    # The fused kernel has the tables' cost hidden behind its products.
    return device.type == "cuda" or codebooks.codebook_size <= _ONE_PASS_CODES_PER_DIM * codebooks.dim
