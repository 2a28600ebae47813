"""Encoding: rows per second, side by side, beside the matrix product that any of it must contain.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import _peers
import numpy as np
import torch
from _data import mixture
from _measure import alternate, seconds
from _report import heading, note, progress, rounded, table
from torch import Tensor

from semid_daemon.base.types import Codebooks
from semid_daemon.quantizer import Device, Encoder
from semid_daemon.quantizer.assign import assign, cluster_sums
from semid_daemon.quantizer.threads import for_each_span

_LAYERS = 3
_CPU_SHAPES = [(32_768, 384, 256), (20_000, 768, 256), (8_192, 2048, 256), (2_048, 384, 8192)]
_CPU_QUICK_SHAPES = [(16_384, 384, 256), (8_192, 768, 256), (1_024, 384, 2048)]
_CUDA_SHAPES = [(1_000_000, 384, 256), (1_000_000, 768, 256), (1_048_576, 2048, 256), (262_144, 384, 8192)]
_CUDA_QUICK_SHAPES = [(131_072, 384, 256), (65_536, 2048, 256)]
# A slow method gets as many rows as it encodes in about so long, but at least a few.
_ROUND_S = 0.3
_PROBE_ROWS = 256
_REST_S = 0.5
_CPU_TILE_BYTES = 4 << 20
_CUDA_TILE_BYTES = 1 << 30
_GRID_CHUNK_BYTES = {"cpu": 1 << 26, "cuda": 1 << 32}


@dataclass(frozen=True)
class _Contender:
    """A method by name; `encode` takes the first so many rows."""

    name: str
    encode: Callable[[int], Tensor | np.ndarray | None]
    fewest_rows: int = 1
    is_ceiling: bool = False
    is_peer: bool = True  # gives codes to compare with semid's


@dataclass(frozen=True)
class _Outcome:
    rate: float  # rows/s, the median over the rounds
    of_ceiling: float  # the median over the rounds of the share of that round's ceiling
    rows: int
    same_codes: float | None


def encode_tables(device: Device, quick: bool) -> None:
    """Print the tables of encoding on one device."""
    on_cuda = device.type == "cuda"
    full_shapes, quick_shapes = (_CUDA_SHAPES, _CUDA_QUICK_SHAPES) if on_cuda else (_CPU_SHAPES, _CPU_QUICK_SHAPES)
    shapes = quick_shapes if quick else full_shapes
    outcomes = [_measure_shape(device, *shape, rounds=3 if quick else 5) for shape in shapes]
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome))
    header = [f"N={rows:,} D={dim} K={size}" for rows, dim, size in shapes]

    heading(f"Encode on {device.type}: rows/s, and share of the product's ceiling ({_LAYERS} layers)")
    table(
        ["method", *header],
        [
            [name, *(_rate_cell(each, name, shape[0]) for each, shape in zip(outcomes, shapes, strict=True))]
            for name in names
        ],
    )
    note(
        "Medians over alternating rounds. The ceiling is the product of the rows and all layers' centroids by "
        f"{'torch.mm, in float32 or TF32' if on_cuda else 'torch.mm or NumPy'}, whichever is faster. The same "
        "codebooks and threads for all; residuals are not normalized but where stated, for FAISS's quantizer knows no "
        "normalization. A star: measured on fewer rows, and extrapolated."
    )
    heading(f"Encode on {device.type}: rows with the same codes as semid's")
    coded = [name for name in names if any(each[name].same_codes is not None for each in outcomes if name in each)]
    table(["method", *header], [[name, *(_same_cell(each, name) for each in outcomes)] for name in coded])


def _rate_cell(outcome: dict[str, _Outcome], name: str, rows: int) -> str:
    if name not in outcome:
        return "-"
    star = "*" if outcome[name].rows < rows else ""
    return f"{rounded(outcome[name].rate)}{star} ({outcome[name].of_ceiling:.1%})"


def _same_cell(outcome: dict[str, _Outcome], name: str) -> str:
    if name not in outcome or outcome[name].same_codes is None:
        return "-"
    return f"{outcome[name].same_codes:.3%}"


def _measure_shape(device: Device, rows: int, dim: int, size: int, rounds: int) -> dict[str, _Outcome]:
    progress(f"encode on {device.type}: {rows:,} rows, D={dim}, K={size}")
    train_rows = max(_LAYERS * size, 16_384)
    all_ND = mixture(train_rows + rows, dim, seed=dim, device=device)
    train_ND, rows_ND = all_ND[:train_rows], all_ND[train_rows:]
    codebooks = _drawn_codebooks(train_ND, size, normalize=False)
    normalized = _drawn_codebooks(train_ND, size, normalize=True)
    semid = _semid_contender("semid", codebooks, rows_ND)
    contenders = _cuda_contenders if device.type == "cuda" else _cpu_contenders
    methods = [
        *_ceilings(codebooks, rows_ND),
        semid,
        _semid_contender("semid, normalized residuals", normalized, rows_ND),
        *contenders(codebooks, rows_ND),
    ]
    counts = [_affordable_rows(method, rows, device) for method in methods]
    runs = [
        lambda method=method, count=count: method.encode(count) for method, count in zip(methods, counts, strict=True)
    ]
    rates = np.array(counts) / alternate(runs, rounds, device)
    ceilings = rates[:, [method.is_ceiling for method in methods]].max(axis=1, keepdims=True)
    codes_NL = _codes(semid, rows)
    return {
        method.name: _Outcome(rate, share, count, _same_codes(method, count, codes_NL))
        for method, rate, share, count in zip(
            methods, np.median(rates, axis=0), np.median(rates / ceilings, axis=0), counts, strict=True
        )
    }


def _drawn_codebooks(rows_ND: Tensor, size: int, normalize: bool) -> Codebooks:
    """Codebooks for timing: centroids drawn from the rows and moved once to the means of their clusters."""
    residual_ND, layers = rows_ND.clone(), []
    for layer in range(_LAYERS):
        if normalize:
            residual_ND = torch.nn.functional.normalize(residual_ND, dim=1)
        drawn_KD = residual_ND[layer * size : (layer + 1) * size]
        labels_N, _ = assign(residual_ND, drawn_KD)
        sums_KD, counts_K = cluster_sums(residual_ND, labels_N, size)
        means_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp_min(1)[:, None], drawn_KD)
        layers.append(means_KD.cpu().numpy())
        residual_ND = residual_ND - means_KD[labels_N]
    return Codebooks(np.stack(layers), normalize)


def _affordable_rows(method: _Contender, rows: int, device: Device) -> int:
    """All rows, or as many as the method encodes in the time of a round. It is warm afterwards."""
    time.sleep(_REST_S)  # the threads of the library before spin for a while
    count = min(rows, max(method.fewest_rows, _PROBE_ROWS if method.fewest_rows == 1 else 1))
    while True:
        method.encode(count)
        elapsed_s = seconds(partial(method.encode, count), device)
        if count == rows:
            return rows
        if elapsed_s > _ROUND_S / 8:
            break
        count = min(rows, 8 * count)
    affordable = int(count / elapsed_s * _ROUND_S)
    count = rows if affordable > rows // 2 else max(count, affordable)
    method.encode(count)
    return count


def _same_codes(method: _Contender, count: int, codes_NL: np.ndarray) -> float | None:
    if not method.is_peer:
        return None
    return float((_codes(method, count) == codes_NL[:count]).all(axis=1).mean())


def _codes(method: _Contender, count: int) -> np.ndarray:
    codes = method.encode(count)
    return codes.cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)


def _semid_contender(name: str, codebooks: Codebooks, rows_ND: Tensor) -> _Contender:
    encoder = Encoder(codebooks, rows_ND.device)
    return _Contender(name, lambda count: encoder.encode_tensor(rows_ND[:count]), is_peer=False)


def _ceilings(codebooks: Codebooks, rows_ND: Tensor) -> list[_Contender]:
    """The product of tiles of rows by all centroids of all layers."""
    device = rows_ND.device
    all_centroids_WD = torch.from_numpy(codebooks.centroids_LKD).to(device).flatten(0, 1)
    width = len(all_centroids_WD)
    tile_bytes = _CUDA_TILE_BYTES if device.type == "cuda" else _CPU_TILE_BYTES
    step = max(64, tile_bytes // (4 * width))

    def multiply_tiles(rows_ND: Tensor, centroids_WD: Tensor, tiles: Sequence[slice]) -> None:
        scores_NW = torch.empty((step, width), dtype=rows_ND.dtype, device=device)
        for tile in tiles:
            torch.mm(rows_ND[tile], centroids_WD.T, out=scores_NW[: tile.stop - tile.start])

    def tiles_of(count: int) -> list[slice]:
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]

    def product(name: str, multiply: Callable[[int], None], is_ceiling: bool = True) -> _Contender:
        return _Contender(f"product: {name}", multiply, is_ceiling=is_ceiling, is_peer=False)

    if device.type == "cuda":
        rows16_ND, centroids16_WD = rows_ND.half(), all_centroids_WD.half()

        def in_float32(count: int, tf32: bool) -> None:
            with _peers.matmul_precision(tf32):
                multiply_tiles(rows_ND, all_centroids_WD, tiles_of(count))

        def in_float16(count: int) -> None:
            multiply_tiles(rows16_ND, centroids16_WD, tiles_of(count))

        return [
            product("float32", lambda count: in_float32(count, tf32=False)),
            product("TF32", lambda count: in_float32(count, tf32=True)),
            product("float16, of float16 rows", in_float16, is_ceiling=False),
        ]

    def in_turn(count: int) -> None:
        multiply_tiles(rows_ND, all_centroids_WD, tiles_of(count))

    def side_by_side(count: int) -> None:
        for_each_span(device, count, step, lambda tiles: multiply_tiles(rows_ND, all_centroids_WD, tiles))

    def in_numpy(count: int) -> None:
        scores_NW = np.empty((step, width), dtype=np.float32)
        for tile in tiles_of(count):
            np.matmul(rows_ND.numpy()[tile], all_centroids_WD.numpy().T, out=scores_NW[: tile.stop - tile.start])

    return [
        product("torch, all threads on a tile", in_turn),
        product("torch, a tile for each thread", side_by_side),
        product("NumPy", in_numpy),
    ]


def _cpu_contenders(codebooks: Codebooks, rows_ND: Tensor) -> list[_Contender]:
    array_ND = rows_ND.numpy()

    def of(name: str, encode: _peers.Encode) -> _Contender:
        return _Contender(name, lambda count: encode(array_ND[:count]))

    methods = []
    if _peers.HAS_FAISS:
        for beam in (1, 5):
            for tables in (True, False):
                name = f"FAISS ResidualQuantizer, beam {beam}, lookup tables {'on' if tables else 'off'}"
                methods.append(of(name, _peers.faiss_residual_quantizer(codebooks, beam, tables)))
        methods.append(of("FAISS k-means chain", _peers.faiss_chain(codebooks)))
    if _peers.HAS_SKLEARN:
        methods.append(of("scikit-learn MiniBatchKMeans chain", _peers.sklearn_chain(codebooks)))
    return [*methods, _grid_contender(codebooks, rows_ND)]


def _cuda_contenders(codebooks: Codebooks, rows_ND: Tensor) -> list[_Contender]:
    def of(name: str, encode: _peers.EncodeTensor) -> _Contender:
        return _Contender(name, lambda count: encode(rows_ND[:count]))

    methods = [
        of("torch loop, float32", _peers.torch_loop(codebooks, rows_ND.device, tf32=False)),
        of("torch loop, TF32", _peers.torch_loop(codebooks, rows_ND.device, tf32=True)),
    ]
    if _peers.HAS_FLASH:
        methods.append(of("flash-kmeans chain", _peers.flash_chain(codebooks, rows_ND.device)))
    return [*methods, _grid_contender(codebooks, rows_ND)]


def _grid_contender(codebooks: Codebooks, rows_ND: Tensor) -> _Contender:
    encode, chunk_rows = _peers.grid_formula(codebooks, rows_ND.device, _GRID_CHUNK_BYTES[rows_ND.device.type])
    return _Contender("GRID's formula", lambda count: encode(rows_ND[:count]), fewest_rows=chunk_rows)
