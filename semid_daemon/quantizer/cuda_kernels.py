"""Fused CUDA kernels in Triton. No score leaves the chip. Imported only where CUDA is used.

Products are of float16 operands with float32 sums: float16 has as many bits of mantissa as TF32, at twice
the speed. Rounding to it is to nearest, so errors have no bias, and what it does to a score is bounded
here per row. Values beyond its range become infinite or lose their last bits; both end in the bound.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

_NARROW_N = 8
_ENCODE_N = 64  # two programs fit on a multiprocessor: one's products hide what the other does with its own
_BLOCK_N, _BLOCK_K, _STAGES = 128, 256, 4
_CHUNK_BYTES = 1 << 28  # of float16 rows at a time
_PIECE_ROWS = 128


@triton.jit
def _narrow_kernel(
    rows_ND,
    weights_LD,
    rows16_ND,
    squares_N,
    weighted_NL,
    n_rows,
    L: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    row_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    live_n = row_n < n_rows
    layer_l = tl.arange(0, BLOCK_L)
    square_n = tl.zeros([BLOCK_N], dtype=tl.float32)
    weighted_nl = tl.zeros([BLOCK_N, BLOCK_L], dtype=tl.float32)
    for first_d in range(0, DIM, BLOCK_D):
        d = first_d + tl.arange(0, BLOCK_D)
        real_nd = live_n[:, None] & (d < DIM)[None, :]
        x_nd = tl.load(rows_ND + row_n[:, None] * DIM + d[None, :], mask=real_nd, other=0.0)
        tl.store(rows16_ND + row_n[:, None] * DIM + d[None, :], x_nd.to(tl.float16), mask=real_nd)
        x2_nd = x_nd * x_nd
        square_n += tl.sum(x2_nd, axis=1)
        for layer in tl.static_range(L):
            w_d = tl.load(weights_LD + layer * DIM + d, mask=d < DIM, other=0.0)
            sum_n = tl.sum(x2_nd * w_d[None, :], axis=1)
            weighted_nl += tl.where(layer_l[None, :] == layer, sum_n[:, None], 0.0)
    tl.store(squares_N + row_n, square_n, mask=live_n)
    tl.store(
        weighted_NL + row_n[:, None] * L + layer_l[None, :], weighted_nl, mask=live_n[:, None] & (layer_l < L)[None, :]
    )


@triton.jit
def _encode_kernel(
    rows16_ND,
    squares_N,
    weighted_NL,
    centroids_LKD,
    half_squares_LK,
    tables_PKK,
    reach_L,
    spread_L,
    codes_NL,
    scales_NL,
    flagged_N,
    n_rows,
    L: tl.constexpr,
    DIM: tl.constexpr,
    K: tl.constexpr,
    NORMALIZE: tl.constexpr,
    ROUNDING: tl.constexpr,
    UNDERFLOW: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    EPS: tl.constexpr = 1.1920929e-07
    row_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    live_n = row_n < n_rows
    offset_d = tl.arange(0, BLOCK_D)
    offset_k = tl.arange(0, BLOCK_K)

    flag_n = tl.zeros([BLOCK_N], dtype=tl.int1)
    square_n = tl.load(squares_N + row_n, mask=live_n, other=0.0)
    scale_n = tl.sqrt(square_n) if NORMALIZE else tl.full([BLOCK_N], 1.0, dtype=tl.float32)
    scale_error_n = tl.full([BLOCK_N], 8 * EPS if NORMALIZE else 0.0, dtype=tl.float32)
    table_drift_n = tl.zeros([BLOCK_N], dtype=tl.float32)
    for layer in range(L):
        best_n = tl.full([BLOCK_N], float("-inf"), dtype=tl.float32)
        second_n = tl.full([BLOCK_N], float("-inf"), dtype=tl.float32)
        code_n = tl.zeros([BLOCK_N], dtype=tl.int32)
        for first_k in range(0, K, BLOCK_K):
            code_k = first_k + offset_k
            real_k = code_k < K
            scores_nk = tl.zeros([BLOCK_N, BLOCK_K], dtype=tl.float32)
            for first_d in range(0, DIM, BLOCK_D):
                d = first_d + offset_d
                real_d = d < DIM
                x_nd = tl.load(
                    rows16_ND + row_n[:, None] * DIM + d[None, :], mask=live_n[:, None] & real_d[None, :], other=0.0
                )
                c_kd = tl.load(
                    centroids_LKD + (layer * K + code_k)[:, None] * DIM + d[None, :],
                    mask=real_k[:, None] & real_d[None, :],
                    other=0.0,
                )
                scores_nk = tl.dot(x_nd, tl.trans(c_kd), scores_nk)
            for earlier in range(layer):
                chosen_n = tl.load(codes_NL + row_n * L + earlier, mask=live_n, other=0)
                factor_n = tl.load(scales_NL + row_n * L + earlier, mask=live_n, other=0.0)
                table = tables_PKK + (layer * (layer - 1) // 2 + earlier) * (K * K)
                inner_nk = tl.load(
                    table + chosen_n.to(tl.int64)[:, None] * K + code_k[None, :], mask=real_k[None, :], other=0.0
                )
                scores_nk -= factor_n[:, None] * inner_nk
            half_k = tl.load(half_squares_LK + layer * K + code_k, mask=real_k, other=0.0)
            scores_nk = tl.where(real_k[None, :], scores_nk - scale_n[:, None] * half_k[None, :], float("-inf"))
            top_n = tl.max(scores_nk, axis=1)
            where_n = tl.argmax(scores_nk, axis=1, tie_break_left=True)
            next_n = tl.max(tl.where(offset_k[None, :] == where_n[:, None], float("-inf"), scores_nk), axis=1)
            second_n = tl.maximum(tl.minimum(best_n, top_n), tl.maximum(second_n, next_n))
            code_n = tl.where(top_n > best_n, where_n + first_k, code_n)
            best_n = tl.maximum(best_n, top_n)

        # NaN compares false: such a row keeps a code within the codebook, and is flagged below.
        code_n = tl.minimum(tl.maximum(code_n, 0), K - 1)
        tl.store(codes_NL + row_n * L + layer, code_n, mask=live_n)
        tl.store(scales_NL + row_n * L + layer, scale_n, mask=live_n)
        # The bound of `encoding._Guard`, with float16's rounding for a float32 dot product's.
        reach = tl.load(reach_L + layer)
        spread = tl.load(spread_L + layer)
        weighted_n = tl.load(weighted_NL + row_n * L + layer, mask=live_n, other=0.0)
        dot_error_n = ROUNDING * tl.sqrt(weighted_n) + UNDERFLOW * (reach + tl.sqrt(square_n))
        bound_n = (
            2 * (dot_error_n + table_drift_n * reach)
            + scale_n * (scale_error_n + 2 * EPS) * (spread + 2 * EPS * reach * reach)
            + tl.abs(best_n) * (4 * EPS)
        )
        flag_n = flag_n | ~(best_n - second_n > bound_n + 1e-30) | (square_n < 1e-24)
        table_drift_n += scale_n * (scale_error_n + 2 * EPS) * reach
        if NORMALIZE:
            squared_n = tl.maximum(scale_n * (scale_n - 2.0 * best_n), 1e-30)
            step_error_n = dot_error_n + table_drift_n * reach
            step_error_n += scale_n * (scale_error_n + 2 * EPS) * (1.0 + reach) * (1.0 + reach)
            scale_error_n = scale_n * step_error_n / squared_n + EPS
            scale_n = tl.sqrt(squared_n)
        tl.debug_barrier()  # what was stored above is read by other threads of this program
    tl.store(flagged_N + row_n, flag_n, mask=live_n)


def encode_fused(
    rows_ND: Tensor,
    centroids16_LKD: Tensor,
    half_squares_LK: Tensor,
    tables_PKK: Tensor,
    weights_LD: Tensor,
    reach_L: Tensor,
    spread_L: Tensor,
    *,
    normalize_residuals: bool,
) -> tuple[Tensor, Tensor]:
    """Codes (N×L int32) of rows (N×D float32), and which of them are doubtful (N bool).

    `tables_PKK` holds <c_j, c_l> of the pairs of layers j < l, in the order (0,1), (0,2), (1,2)…;
    `weights_LD` the mean over a layer's centroids of their squared values; reach and spread as in `encoding`.
    """
    n_rows, dim = rows_ND.shape
    n_layers, n_codes = half_squares_LK.shape
    device = rows_ND.device
    codes_NL = torch.empty((n_rows, n_layers), dtype=torch.int32, device=device)
    flagged_N = torch.empty(n_rows, dtype=torch.bool, device=device)
    step = max(1024, _CHUNK_BYTES // (2 * dim))
    rows16_ND = torch.empty((min(step, n_rows), dim), dtype=torch.float16, device=device)
    squares_N = torch.empty(rows16_ND.shape[0], device=device)
    weighted_NL, scales_NL = torch.empty((2, rows16_ND.shape[0], n_layers), device=device)
    with torch.cuda.device(device):
        for start in range(0, n_rows, step):
            chunk = slice(start, min(start + step, n_rows))
            rows = chunk.stop - chunk.start
            _narrow_kernel[(triton.cdiv(rows, _NARROW_N),)](
                rows_ND[chunk],
                weights_LD,
                rows16_ND,
                squares_N,
                weighted_NL,
                rows,
                L=n_layers,
                DIM=dim,
                BLOCK_N=_NARROW_N,
                BLOCK_D=min(512, triton.next_power_of_2(dim)),
                BLOCK_L=triton.next_power_of_2(n_layers),
                num_warps=4,
            )
            _encode_kernel[(triton.cdiv(rows, _ENCODE_N),)](
                rows16_ND,
                squares_N,
                weighted_NL,
                centroids16_LKD,
                half_squares_LK,
                tables_PKK,
                reach_L,
                spread_L,
                codes_NL[chunk],
                scales_NL,
                flagged_N[chunk],
                rows,
                L=n_layers,
                DIM=dim,
                K=n_codes,
                NORMALIZE=normalize_residuals,
                # An error of float16 rounding has 0.6 u of the operands' root sum of squares, u = 2^-11;
                # the difference of two scores 0.85 u: twice 3 u is seven of its standard deviations.
                ROUNDING=3.0 * 2.0**-11,
                # Below 2^-14 float16 keeps absolute, not relative precision: 2^-25 per value.
                UNDERFLOW=2.0**-25 * 2.0 * dim**0.5,
                BLOCK_N=_ENCODE_N,
                BLOCK_K=_BLOCK_K,
                BLOCK_D=64 if dim >= 64 else 32,
                num_warps=8,
                num_stages=_STAGES,
            )
    return codes_NL, flagged_N


@triton.jit
def _assign_kernel(
    rows_ND,
    centroids_KD,
    half_squares_K,
    labels_N,
    best_N,
    n_rows,
    DIM: tl.constexpr,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    live_n = row_n < n_rows
    offset_d = tl.arange(0, BLOCK_D)
    offset_k = tl.arange(0, BLOCK_K)
    best_n = tl.full([BLOCK_N], float("-inf"), dtype=tl.float32)
    label_n = tl.zeros([BLOCK_N], dtype=tl.int32)
    for first_k in range(0, K, BLOCK_K):
        code_k = first_k + offset_k
        scores_nk = tl.zeros([BLOCK_N, BLOCK_K], dtype=tl.float32)
        for first_d in range(0, DIM, BLOCK_D):
            d = first_d + offset_d
            real_d = d < DIM
            x_nd = tl.load(
                rows_ND + row_n[:, None] * DIM + d[None, :], mask=live_n[:, None] & real_d[None, :], other=0.0
            )
            c_kd = tl.load(centroids_KD + code_k[:, None] * DIM + d[None, :], mask=real_d[None, :], other=0.0)
            scores_nk = tl.dot(x_nd.to(tl.float16), tl.trans(c_kd), scores_nk)
        half_k = tl.load(half_squares_K + code_k)
        # The code goes into a score's last bits, which float16 products do not know anyway: one reduction
        # finds both.
        bits_nk = (scores_nk - half_k[None, :]).to(tl.int32, bitcast=True)
        bits_nk = (bits_nk & ~(BLOCK_K - 1)) | offset_k[None, :]
        top_n = tl.max(bits_nk.to(tl.float32, bitcast=True), axis=1)
        where_n = top_n.to(tl.int32, bitcast=True) & (BLOCK_K - 1)
        label_n = tl.where(top_n > best_n, where_n + first_k, label_n)
        best_n = tl.maximum(best_n, top_n)
    tl.store(labels_N + row_n, label_n, mask=live_n)
    tl.store(best_N + row_n, best_n, mask=live_n)


def assign_fused(rows_ND: Tensor, centroids_KD: Tensor, half_squares_K: Tensor) -> tuple[Tensor, Tensor]:
    """Label (N int32) of the centroid with the greatest x·c - half_squares, and that value (N float32)."""
    n_rows, dim = rows_ND.shape
    n_codes = centroids_KD.shape[0]
    labels_N = torch.empty(n_rows, dtype=torch.int32, device=rows_ND.device)
    best_N = torch.empty(n_rows, device=rows_ND.device)
    # Short products leave the reductions to be hidden: smaller tiles, more programs at once.
    block_k = 64 if dim <= 64 else _BLOCK_K if n_codes > 128 else 128
    # Compiling takes most of a second for each number of codes, and k-means|| draws other numbers every time:
    # they are filled up to one of a few, with codes that no row is near to.
    padding = -n_codes % max(block_k, triton.next_power_of_2(n_codes) // 16)
    centroids16_KD = centroids_KD.half()
    if padding:
        centroids16_KD = torch.nn.functional.pad(centroids16_KD, (0, 0, 0, padding))
        half_squares_K = torch.nn.functional.pad(half_squares_K, (0, padding), value=1e38)
    with torch.cuda.device(rows_ND.device):
        _assign_kernel[(triton.cdiv(n_rows, _BLOCK_N),)](
            rows_ND,
            centroids16_KD,
            half_squares_K,
            labels_N,
            best_N,
            n_rows,
            DIM=dim,
            K=n_codes + padding,
            BLOCK_N=_BLOCK_N,
            BLOCK_K=block_k,
            BLOCK_D=64 if dim >= 64 else 32,
            num_warps=4 if dim <= 64 else 8,
            num_stages=3,
        )
    return labels_N, best_N


@triton.jit
def _piece_sums_kernel(
    rows_ND,
    order_N,
    starts_K,
    piece_ends_K,
    sums_PD,
    n_rows,
    n_clusters,
    PIECE: tl.constexpr,
    STEPS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    piece = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    # Whose piece this is: the first cluster whose pieces end after it. None, for those that are too many.
    cluster, beyond = 0, n_clusters
    for _ in range(STEPS):
        middle = (cluster + beyond) // 2
        later = tl.load(piece_ends_K + tl.minimum(middle, n_clusters - 1)) <= piece
        cluster = tl.where(later & (cluster < beyond), middle + 1, cluster)
        beyond = tl.where(later, beyond, middle)
    if cluster < n_clusters:
        first_piece = tl.load(piece_ends_K + cluster - 1, mask=cluster > 0, other=0)
        end = tl.load(starts_K + cluster + 1, mask=cluster + 1 < n_clusters, other=n_rows)
        start = tl.load(starts_K + cluster) + (piece - first_piece) * PIECE
        end = tl.minimum(end, start + PIECE)
        sum_d = tl.zeros([BLOCK_D], dtype=tl.float32)
        for first in range(0, PIECE, BLOCK_N):
            place_n = start + first + tl.arange(0, BLOCK_N)
            live_n = place_n < end
            row_n = tl.load(order_N + place_n, mask=live_n, other=0)
            value_nd = tl.load(
                rows_ND + row_n[:, None] * DIM + d[None, :], mask=live_n[:, None] & (d < DIM)[None, :], other=0.0
            )
            sum_d += tl.sum(value_nd, axis=0)
        tl.store(sums_PD + piece * DIM + d, sum_d, mask=d < DIM)


@triton.jit
def _cluster_sums_kernel(
    sums_PD, piece_ends_K, sums_KD, DIM: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr
):
    cluster = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    start = tl.load(piece_ends_K + cluster - 1, mask=cluster > 0, other=0)
    end = tl.load(piece_ends_K + cluster)
    sum_d = tl.zeros([BLOCK_D], dtype=tl.float32)
    for first in range(start, end, BLOCK_P):
        piece_p = first + tl.arange(0, BLOCK_P)
        value_pd = tl.load(
            sums_PD + piece_p[:, None] * DIM + d[None, :], mask=(piece_p < end)[:, None] & (d < DIM)[None, :], other=0.0
        )
        sum_d += tl.sum(value_pd, axis=0)
    tl.store(sums_KD + cluster * DIM + d, sum_d, mask=d < DIM)


def sums_in_order(rows_ND: Tensor, order_N: Tensor, starts_K: Tensor, counts_K: Tensor) -> Tensor:
    """Sum (K×D float32) of every cluster's rows, `order_N[start : start + count]`, clusters one after the other.

    By way of sums of at most 128 rows each: few and large clusters alone would leave most of a GPU idle. How
    many such pieces there are is not asked of the device: as many are started as there can be. Rows are added
    in their order: the same sum every time.
    """
    n_rows, dim = rows_ND.shape
    n_clusters = counts_K.numel()
    piece_ends_K = ((counts_K + (_PIECE_ROWS - 1)) // _PIECE_ROWS).cumsum(0)
    most_pieces = n_rows // _PIECE_ROWS + min(n_clusters, n_rows)
    sums_PD = torch.empty((most_pieces, dim), device=rows_ND.device)
    sums_KD = torch.empty((n_clusters, dim), device=rows_ND.device)
    block_d = min(256, triton.next_power_of_2(dim))
    block_n = min(_PIECE_ROWS, max(16, 4096 // block_d))
    with torch.cuda.device(rows_ND.device):
        _piece_sums_kernel[(most_pieces, triton.cdiv(dim, block_d))](
            rows_ND,
            order_N,
            starts_K,
            piece_ends_K,
            sums_PD,
            n_rows,
            n_clusters,
            PIECE=_PIECE_ROWS,
            STEPS=n_clusters.bit_length(),
            DIM=dim,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
            num_warps=4,
        )
        _cluster_sums_kernel[(n_clusters, triton.cdiv(dim, block_d))](
            sums_PD, piece_ends_K, sums_KD, DIM=dim, BLOCK_P=block_n, BLOCK_D=block_d, num_warps=4
        )
    return sums_KD
