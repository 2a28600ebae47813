"""Training: how long, and what the codebooks are worth on rows that they were not trained on.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import _peers
from _data import mixture, packages
from _measure import QUALITY_COLUMNS, judge, seconds
from _report import heading, note, progress, table

from semid_daemon.quantizer import Device, Encoder, GridTrainer, LloydTrainer
from semid_daemon.records import Codebooks, FloatArray

_LAYERS = 3
_SHAPES = [(100_000, 768, 256)]
_QUICK_SHAPES = [(20_000, 384, 256)]
_LARGE_SHAPES = [(1_000_000, 768, 256), (200_000, 2048, 256), (200_000, 384, 8192)]
_HELD_OUT = 20_000
_PACKAGES_SIZE = 256
_ERROR_NOTE = (
    "error: mean squared distance between a row and its reconstruction, over the rows' mean squared norm. "
    "Perplexities: layer by layer, of K."
)


@dataclass(frozen=True)
class _Trained:
    codebooks: Codebooks
    encode: _peers.Encode


def _greedy(codebooks: Codebooks) -> _Trained:
    """To be encoded to the nearest centroid, layer by layer, which every exact encoder does alike."""
    return _Trained(codebooks, Encoder(codebooks, Device("cpu")).encode)


_Training = tuple[str, Callable[[FloatArray], _Trained]]


def train_tables(devices: Sequence[Device], quick: bool, large: bool) -> None:
    """Print the tables of training on synthetic rows."""
    shapes = (_QUICK_SHAPES if quick else _SHAPES) + (_LARGE_SHAPES if large else [])
    for rows, dim, size in shapes:
        progress(f"train: {rows:,} rows, D={dim}, K={size}")
        rows_ND = mixture(rows + _HELD_OUT, dim, seed=dim).numpy()
        lines = [
            [name, *cells[0]]
            for name, cells in _results(_trainings(devices, size, False, [1]), rows_ND[:rows], {"": rows_ND[rows:]})
        ]
        heading(
            f"Train on {rows:,} synthetic rows, D={dim}, K={size}, {_LAYERS} layers; judged on {_HELD_OUT:,} others"
        )
        table(["method", "seconds", *QUALITY_COLUMNS], lines)
        note(f"Residuals not normalized. {_ERROR_NOTE}")


def quality_tables(devices: Sequence[Device], data: Path | None) -> None:
    """Print the tables of quality on real packages."""
    train_ND, judged = packages(data)
    for normalize in (True, False):
        progress(f"quality: {len(train_ND):,} packages, residuals {'' if normalize else 'not '}normalized")
        results = _results(_trainings(devices, _PACKAGES_SIZE, normalize, [1, 5]), train_ND, judged)
        for index, (name, rows_ND) in enumerate(judged.items()):
            heading(
                f"Packages, residuals {'' if normalize else 'not '}normalized: trained on {len(train_ND):,}, "
                f"judged on {name} ({len(rows_ND):,}); K={_PACKAGES_SIZE}, {_LAYERS} layers"
            )
            table(["method", "seconds", *QUALITY_COLUMNS], [[each, *cells[index]] for each, cells in results])
    note(
        f"{_ERROR_NOTE} With normalized residuals a row's own residual norms scale its reconstruction, so errors "
        "compare within a table only. FAISS's ResidualQuantizer knows no normalization."
    )


def _results(
    trainings: Sequence[_Training], train_ND: FloatArray, judged: dict[str, FloatArray]
) -> list[tuple[str, list[list[str]]]]:
    """By method: its cells, seconds first, for every set of rows."""
    results = []
    for name, fit in trainings:
        trained: list[_Trained] = []
        elapsed_s = seconds(lambda fit=fit, trained=trained: trained.append(fit(train_ND)), Device("cpu"))
        encode, codebooks = trained[0].encode, trained[0].codebooks
        qualities = [judge(rows_ND, encode(rows_ND), codebooks) for rows_ND in judged.values()]
        results.append((name, [[f"{elapsed_s:.1f}", *quality.cells()] for quality in qualities]))
        progress(f"  {name}: {'; '.join(', '.join(cells) for cells in results[-1][1])}")
    return results


def _trainings(devices: Sequence[Device], size: int, normalize: bool, beams: Sequence[int]) -> list[_Training]:
    """Every method; FAISS's quantizer in its progressive form, as it comes, with every beam, and in its plain one."""
    trainings: list[_Training] = [
        (
            f"semid ({device.type}){f', beam {beam}' if beam > 1 else ''}",
            lambda rows_ND, device=device, beam=beam: _train_semid(rows_ND, size, normalize, device, beam),
        )
        for device in devices
        for beam in beams
    ]
    if _peers.HAS_FAISS and not normalize:
        for beam, progressive in [*((beam, True) for beam in beams), (1, False)]:
            kind = "progressive" if progressive else "Train_default"
            trainings.append(
                (
                    f"FAISS ResidualQuantizer, {kind}, beam {beam}",
                    lambda rows_ND, beam=beam, progressive=progressive: _train_faiss(rows_ND, size, beam, progressive),
                )
            )
    chains = []
    if _peers.HAS_FAISS:
        chains.append(("FAISS k-means chain", _peers.faiss_kmeans))
    if _peers.HAS_SKLEARN:
        chains.append(("scikit-learn MiniBatchKMeans chain", _peers.sklearn_kmeans))
    if _peers.HAS_FLASH and any(device.type == "cuda" for device in devices):
        chains.append(("flash-kmeans chain (cuda)", _peers.flash_kmeans))
    for name, layer_fit in chains:
        trainings.append(
            (
                name,
                lambda rows_ND, layer_fit=layer_fit: _greedy(
                    _peers.train_chain(rows_ND, _LAYERS, normalize, layer_fit(size))
                ),
            )
        )
    trainings.append(("GRID's schedule", lambda rows_ND: _train_grid(rows_ND, size, normalize)))
    return trainings


def _train_semid(rows_ND: FloatArray, size: int, normalize: bool, device: Device, beam: int) -> _Trained:
    """With the daemon's defaults, encoded by the beam that it is trained with."""
    trainer = LloydTrainer(
        n_layers=_LAYERS,
        n_clusters=size,
        normalize_residuals=normalize,
        seed=0,
        device=device,
        iterations=100,
        tolerance=1e-4,
        beam_width=beam,
    )
    for _ in trainer.train(rows_ND):
        pass
    return _Trained(trainer.codebooks, Encoder(trainer.codebooks, device).encode)


def _train_faiss(rows_ND: FloatArray, size: int, beam: int, progressive: bool) -> _Trained:
    """Encoded by the beam that it is trained with."""
    codebooks, encode = _peers.train_faiss_residual_quantizer(rows_ND, _LAYERS, size, beam, progressive)
    return _Trained(codebooks, encode)


def _train_grid(rows_ND: FloatArray, size: int, normalize: bool) -> _Trained:
    """With the settings of GRID's rkmeans_train_flat."""
    trainer = GridTrainer(
        n_layers=_LAYERS,
        n_clusters=size,
        normalize_residuals=normalize,
        seed=0,
        device=Device("cpu"),
        max_steps=30,
        batch_rows=2048,
        init_buffer_size=max(3072, size),
    )
    for _ in trainer.train(rows_ND):
        pass
    return _greedy(trainer.codebooks)
