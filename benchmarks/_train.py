"""Training: how long, and what the codebooks are worth on rows that they were not trained on.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import _peers
import numpy as np
from _data import mixture, packages
from _measure import QUALITY_COLUMNS, judge, seconds
from _report import heading, note, progress, table

from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.quantizer import Device, Encoder, GridTrainer, LloydTrainer

_LAYERS = 3
_SHAPES = [(100_000, 768, 256)]
_QUICK_SHAPES = [(20_000, 384, 256)]
_LARGE_SHAPES = [(1_000_000, 768, 256), (200_000, 2048, 256), (200_000, 384, 8192)]
_HELD_OUT = 20_000
_PACKAGES_SIZE = 256
_WARM_ROWS = 4096
_START_S = 60  # until a process has imported the libraries
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


@dataclass(frozen=True)
class _Setting:
    """What all methods of a table have in common, as their processes are told of it."""

    devices: list[str]
    size: int
    normalize: bool
    beams: list[int]
    threads: int
    patience_s: float

    def trainings(self) -> list[_Training]:
        return _trainings([Device(name) for name in self.devices], self.size, self.normalize, self.beams)


def shapes(quick: bool, large: bool) -> list[tuple[int, int, int]]:
    """Rows, dimensions and codes to train with."""
    return (_QUICK_SHAPES if quick else _SHAPES) + (_LARGE_SHAPES if large else [])


def train_tables(
    devices: Sequence[Device], shapes: Sequence[tuple[int, int, int]], threads: int, patience_s: float
) -> None:
    """Print the tables of training on synthetic rows: so many rows, dimensions and codes each."""
    for rows, dim, size in shapes:
        progress(f"train: {rows:,} rows, D={dim}, K={size}")
        rows_ND = mixture(rows + _HELD_OUT, dim, seed=dim).numpy()
        setting = _Setting([device.type for device in devices], size, False, [1], threads, patience_s)
        results = _results(setting, rows_ND[:rows], {"": rows_ND[rows:]})
        lines = [[name, *cells[0]] for name, cells in results]
        heading(
            f"Train on {rows:,} synthetic rows, D={dim}, K={size}, {_LAYERS} layers; judged on {_HELD_OUT:,} others"
        )
        table(["method", "seconds", *QUALITY_COLUMNS], lines)
        note(f"Residuals not normalized. {_ERROR_NOTE}")


def quality_tables(devices: Sequence[Device], data: Path | None, threads: int, patience_s: float) -> None:
    """Print the tables of quality on real packages."""
    train_ND, judged = packages(data)
    for normalize in (True, False):
        progress(f"quality: {len(train_ND):,} packages, residuals {'' if normalize else 'not '}normalized")
        names = [device.type for device in devices]
        results = _results(_Setting(names, _PACKAGES_SIZE, normalize, [1, 5], threads, patience_s), train_ND, judged)
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
    setting: _Setting, train_ND: FloatArray, judged: dict[str, FloatArray]
) -> list[tuple[str, list[list[str]]]]:
    """By method: its cells, seconds first, for every set of rows.

    Each has a process of its own, which is ended when it trains for longer than the setting's patience.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="semid-train-") as directory:
        paths = [Path(directory) / f"{number}.npy" for number in range(len(judged) + 1)]
        for path, rows_ND in zip(paths, [train_ND, *judged.values()], strict=True):
            np.save(path, rows_ND)
        for index, (name, _) in enumerate(setting.trainings()):
            try:
                cells = _result(setting, index, paths)
            except EOFError:  # it has said on stderr what went wrong
                cells = _no_figures("failed", judged)
            if cells is None:
                cells = _no_figures(f"> {setting.patience_s:.0f}", judged)
            results.append((name, cells))
            progress(f"  {name}: {'; '.join(', '.join(line) for line in cells)}")
    return results


def _no_figures(why: str, judged: dict[str, FloatArray]) -> list[list[str]]:
    return [[why, *["-"] * len(QUALITY_COLUMNS)] for _ in judged]


def _result(setting: _Setting, index: int, paths: Sequence[Path]) -> list[list[str]] | None:
    """The cells of one method, None when it took too long."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_work, args=(theirs, setting, index, paths), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_S + setting.patience_s):
            return None  # too long for a few rows even
        ours.recv()
        if not ours.poll(setting.patience_s):
            return None
        ours.recv()  # trained; judging it is not counted
        cells: list[list[str]] = ours.recv()
        return cells
    finally:
        process.kill()
        process.join()


def _work(told: Connection, setting: _Setting, index: int, paths: Sequence[Path]) -> None:
    """In a process of its own: say when it is warm, when it is trained, and what it is worth."""
    _peers.set_threads(setting.threads)
    fit = setting.trainings()[index][1]
    train_ND, *judged = (np.load(path) for path in paths)
    fit(train_ND[: max(_WARM_ROWS, setting.size)])
    told.send("warm")
    trained: list[_Trained] = []
    elapsed_s = seconds(lambda: trained.append(fit(train_ND)), Device("cpu"))
    told.send("trained")
    encode, codebooks = trained[0].encode, trained[0].codebooks
    told.send([[f"{elapsed_s:.1f}", *judge(rows_ND, encode(rows_ND), codebooks).cells()] for rows_ND in judged])


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
    trainings.append(("GRID's schedule", lambda rows_ND: _train_grid(rows_ND, size, normalize, devices[-1])))
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


def _train_grid(rows_ND: FloatArray, size: int, normalize: bool, device: Device) -> _Trained:
    """With the settings of GRID's rkmeans_train_flat."""
    trainer = GridTrainer(
        n_layers=_LAYERS,
        n_clusters=size,
        normalize_residuals=normalize,
        seed=0,
        device=device,
    )
    for _ in trainer.train(rows_ND):
        pass
    return _greedy(trainer.codebooks)
