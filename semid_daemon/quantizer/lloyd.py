"""The default trainer: layer by layer, Lloyd's iterations with split-and-merge moves, on rows in memory."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from semid_daemon.base.types import Codebooks, FloatArray, TrainingStep
from semid_daemon.quantizer.assign import assign, assign_two, cluster_sums, subtract_centroids
from semid_daemon.quantizer.distance import full_float32_matmul
from semid_daemon.quantizer.magnitude import Frame, normalize
from semid_daemon.quantizer.seeding import seed_centroids
from semid_daemon.quantizer.splitting import split_and_merge

_LLOYD_PER_ROUND = 4
_MAX_ROUNDS = 12
_CHUNK_BYTES = 1 << 26
# Of every row, so many residuals where codes will be searched with a beam: more of them do not do better.
_HYPOTHESES = 2
RESTARTS = 3
_CHEAP_PRODUCTS = 1 << 29  # a layer whose iteration takes no more of them is trained several times
_ROWS_PER_STEP = 1 << 18
# Balanced clusters hold at most this many times their share, or what so many rounds have made of it.
_CAPACITY = 1.1
_AUCTION_ROUNDS = 100


class LloydTrainer:
    """Residual k-means by Lloyd's algorithm (Lloyd 1982) from k-means++ seeds, with split-and-merge moves.

    Iterate `train(...)`, one TrainingStep per iteration; afterwards `codebooks` holds the result.
    Everything random comes from `seed`, another stream for every layer.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        n_clusters: int,
        normalize_residuals: bool,
        seed: int,
        device: torch.device,
        iterations: int,
        tolerance: float,
        balanced: bool = False,
        beam_width: int = 1,
        restarts: int = RESTARTS,
    ) -> None:
        """At most `iterations` per layer, which is done when its loss falls by less than the share `tolerance`.

        `balanced` adds biases to the squared distances until every code has about as many rows, at the price
        of a higher loss. A `beam_width` goes into the codebooks; where it is more than 1, layers after the first
        are trained on what the two best choices so far leave of every row. The search meets such residuals,
        and codebooks that know them do better on rows that they were not trained on (FAISS's
        ResidualQuantizer trains on those of the whole beam). A layer that is cheap to train is trained `restarts`
        times, and the run of the lowest loss is kept.
        """
        self._n_layers = n_layers
        self._n_clusters = n_clusters
        self._normalize = normalize_residuals
        self._seed = seed
        self._device = device
        self._iterations = iterations
        self._tolerance = tolerance
        self._balanced = balanced
        self._beam_width = beam_width
        self._restarts = restarts
        self._codebooks: Codebooks | None = None
        self._frame: Frame | None = None
        self._sample_counts: list[Tensor] = []
        self._steps = 0

    @property
    def max_steps(self) -> int:
        """How many iterations `train` takes at most, without those of restarts."""
        return self._n_layers * self._iterations

    @property
    def codebooks(self) -> Codebooks:
        """The trained codebooks. Raises RuntimeError before `train` has been run to its end."""
        if self._codebooks is None:
            raise RuntimeError("train() has not finished")
        return self._codebooks

    def train(self, embeddings_ND: FloatArray) -> Iterator[TrainingStep]:
        """Train on embeddings (N×D float32, finite); the loss is the mean squared distance to the centroid.

        Raises ValueError when there are fewer rows than clusters, MemoryError when the device has too little.
        """
        with _device_memory():
            yield from self._train(embeddings_ND)

    def refine(self, batches: Callable[[], Iterable[FloatArray]], epochs: int) -> Iterator[TrainingStep | None]:
        """After `train` on a sample: passes over all rows, which need not fit in memory, `epochs` for every layer.

        `batches()` gives them anew each time, N×D float32 each. A batch pulls every centroid towards the mean
        of its rows there by their share of all the rows seen (Sculley 2010), those of the sample counted in. Yields
        None after a batch that completes no step.
        """
        with _device_memory():
            yield from self._refine(batches, epochs)

    def _refine(self, batches: Callable[[], Iterable[FloatArray]], epochs: int) -> Iterator[TrainingStep | None]:
        frame = self._frame
        assert frame is not None
        layers = [
            frame.centroids_inside(torch.from_numpy(centroids_KD).to(self._device), layer)
            for layer, centroids_KD in enumerate(self.codebooks.centroids_LKD)
        ]
        biases: list[Tensor | None] = [None] * self._n_layers
        if self.codebooks.biases_LK is not None:
            biases = [
                torch.from_numpy(biases_K).to(self._device) / frame.square(layer)
                for layer, biases_K in enumerate(self.codebooks.biases_LK)
            ]
        for layer, seen_K in enumerate(self._sample_counts):
            first_step, rows, total = self._steps, 0, 0.0
            for batch in _flagging_last(itertools.chain.from_iterable(batches() for _ in range(epochs))):
                rows_ND = torch.from_numpy(np.ascontiguousarray(batch.rows)).to(self._device)
                for below in range(layer + 1):
                    if self._normalize:
                        rows_ND, _ = normalize(rows_ND)
                    if below == 0:
                        rows_ND = frame.inside(rows_ND)
                    if below < layer:
                        labels_N, _ = assign(rows_ND, layers[below], biases[below])
                        rows_ND = rows_ND - layers[below][labels_N]
                labels_N, _ = assign(rows_ND, layers[layer], biases[layer])
                total += float((rows_ND - layers[layer][labels_N]).square().sum(dtype=torch.float64))
                rows += rows_ND.shape[0]
                sums_KD, counts_K = cluster_sums(rows_ND, labels_N, self._n_clusters)
                seen_K = seen_K + counts_K
                pull_KD = (sums_KD - counts_K[:, None] * layers[layer]) / seen_K.clamp_min(1)[:, None]
                layers[layer] = layers[layer] + pull_KD
                if rows >= _ROWS_PER_STEP or (batch.last and rows):
                    self._steps += 1
                    loss = total / rows * frame.square(layer)
                    yield TrainingStep(self._steps, layer, self._steps - first_step, loss)
                    rows, total = 0, 0.0
                else:
                    yield None
        centroids_LKD = np.stack(
            [frame.centroids_outside(centroids_KD, layer).cpu().numpy() for layer, centroids_KD in enumerate(layers)]
        )
        self._codebooks = replace(self.codebooks, centroids_LKD=centroids_LKD)

    def _train(self, embeddings_ND: FloatArray) -> Iterator[TrainingStep]:
        if embeddings_ND.shape[0] < self._n_clusters:
            raise ValueError(f"{embeddings_ND.shape[0]} rows for {self._n_clusters} clusters")
        rows = _Hypotheses(self._on_device(embeddings_ND))
        layers, biases = [], []
        self._steps = 0
        self._sample_counts = []
        for layer in range(self._n_layers):
            if self._normalize:
                rows.normalize()
            if layer == 0:
                self._frame = frame = Frame.of(rows.residuals_HD, self._normalize)
                frame.enter(rows.residuals_HD)
            restarts = self._restarts if rows.residuals_HD.numel() * self._n_clusters <= _CHEAP_PRODUCTS else 1
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + layer)
            runs = [
                _LayerRun(rows.residuals_HD, self._n_clusters, generator, self._iterations, self._tolerance)
                for _ in range(restarts)
            ]
            before, square = self._steps, frame.square(layer)
            for loss in _losses(runs, self._balanced):
                self._steps += 1
                yield TrainingStep(step=self._steps, layer=layer, layer_step=self._steps - before, loss=loss * square)
            best = min(runs, key=lambda run: run.loss)
            centroids_KD = frame.centroids_outside(best.centroids_KD, layer)
            best.centroids_KD = frame.centroids_inside(centroids_KD, layer)  # as they are once they are float32 outside
            layers.append(centroids_KD.cpu().numpy())
            biases.append(_in_float32(best.biases_K, square).cpu().numpy())
            self._sample_counts.append(rows.choose(best, min(self._beam_width, _HYPOTHESES)))
        biases_LK = np.stack(biases) if self._balanced else None
        self._codebooks = Codebooks(np.stack(layers), self._normalize, biases_LK, self._beam_width)

    def _on_device(self, embeddings_ND: FloatArray) -> Tensor:
        """A copy of the rows on the device: all of them, or where its memory does not hold them every second, …"""
        rows_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND))
        while True:
            try:
                return rows_ND.to(self._device, copy=True)
            except torch.OutOfMemoryError:
                if rows_ND.shape[0] < 2 * self._n_clusters:
                    raise
                rows_ND = rows_ND[::2].contiguous()
                warnings.warn(f"the device's memory holds {rows_ND.shape[0]:,} training rows, not all", stacklevel=3)


def _losses(runs: list[_LayerRun], balanced: bool) -> Iterator[float]:
    """The losses of all runs one after the other; at the end the best one's while it is balanced, if it is to be."""
    for run in runs:
        yield from run.losses()
    if balanced:
        best = min(runs, key=lambda run: run.loss)
        del runs[:]
        runs.append(best)
        yield from best.balance()


class _LayerRun:
    """One layer's k-means. `losses()` runs it; afterwards `centroids_KD` are the means of their clusters."""

    def __init__(
        self, rows_ND: Tensor, n_clusters: int, generator: torch.Generator, iterations: int, tolerance: float
    ) -> None:
        self._rows_ND = rows_ND
        self._generator = generator
        self._iterations = iterations
        self._tolerance = tolerance
        self._mean_square = _mean_square(rows_ND)
        self.centroids_KD = seed_centroids(rows_ND, n_clusters, generator)
        self.biases_K = rows_ND.new_zeros(n_clusters)
        self.loss = math.inf

    def losses(self) -> Iterator[float]:
        """The loss of every iteration: Lloyd's, with a round of moves after every few of them while moves pay."""
        n_clusters = self.centroids_KD.shape[0]
        previous, since_moves, rounds = math.inf, 0, 0
        moves_pay = True
        for _ in range(self._iterations):
            labels_N, best_N = assign(self._rows_ND, self.centroids_KD)
            read_loss = _read_later(self._mean_square - 2.0 * best_N.mean(dtype=torch.float64))
            if moves_pay and since_moves >= _LLOYD_PER_ROUND:
                self.centroids_KD, moves = split_and_merge(
                    self._rows_ND, labels_N, self.centroids_KD, self._generator, max(1, n_clusters // 8)
                )
                rounds += 1
                moves_pay = moves > 0 and rounds < _MAX_ROUNDS
                since_moves = 0
            else:
                sums_KD, counts_K = cluster_sums(self._rows_ND, labels_N, n_clusters)
                alive_K1 = counts_K[:, None] > 0
                self.centroids_KD = torch.where(alive_K1, sums_KD / counts_K.clamp_min(1)[:, None], self.centroids_KD)
                since_moves += 1
            loss = self.loss = max(0.0, read_loss())
            yield loss
            if previous - loss <= self._tolerance * loss:
                if not moves_pay:
                    return
                since_moves = _LLOYD_PER_ROUND  # nothing more to be had without a move
            previous = loss

    def balance(self) -> Iterator[float]:
        """Raise the biases of crowded clusters until none has much more than its share of the rows.

        An auction (Bertsekas 1988) with one price per cluster, and no N×K plan: each round raises the bias of a
        crowded cluster by what sends its surplus of most willing rows to their second choice.
        """
        n_clusters, count = self.centroids_KD.shape[0], self._rows_ND.shape[0]
        capacity = math.ceil(_CAPACITY * count / n_clusters)
        for _ in range(_AUCTION_ROUNDS):
            labels_N, best_N, second_N = assign_two(self._rows_ND, self.centroids_KD, self.biases_K)
            biases_N = self.biases_K[labels_N].double()
            loss = self._mean_square - 2.0 * best_N.mean(dtype=torch.float64) - biases_N.mean()
            yield max(0.0, float(loss))
            counts_K = torch.bincount(labels_N, minlength=n_clusters)
            crowded_C = (counts_K > capacity).nonzero()[:, 0]
            if not crowded_C.numel():
                return
            willing_N = (best_N - second_N).argsort(stable=True)
            by_cluster_N = willing_N[labels_N[willing_N].argsort(stable=True)]
            last_C = (counts_K.cumsum(0) - counts_K)[crowded_C] + (counts_K[crowded_C] - capacity) - 1
            rise_C = 2.0 * (best_N - second_N)[by_cluster_N[last_C]]
            self.biases_K[crowded_C] += rise_C * (1.0 + 1e-6) + 1e-6 * self.loss


class _Hypotheses:
    """What the best choices so far leave of every row: one residual of each, or the same number of all.

    `residuals_HD` are those of the first row, then those of the second, …
    """

    def __init__(self, rows_ND: Tensor) -> None:
        self.residuals_HD = rows_ND
        self._rows = rows_ND.shape[0]
        # A residual's own scale, by which its squared distances weigh against another's of the same row.
        self._scales_H = rows_ND.new_ones(rows_ND.shape[0])

    def normalize(self) -> None:
        """Divide residuals by their norms, in place."""
        for chunk in _chunks(self.residuals_HD):
            self.residuals_HD[chunk], norms_H = normalize(self.residuals_HD[chunk])
            self._scales_H[chunk] *= norms_H

    def choose(self, layer: _LayerRun, width: int) -> Tensor:
        """Go on to what the `width` best choices of a code leave; how many rows chose each code first (K int64)."""
        if width == 1:
            labels_H, _ = assign(self.residuals_HD, layer.centroids_KD, layer.biases_K)
            subtract_centroids(self.residuals_HD, layer.centroids_KD, labels_H)
            return torch.bincount(labels_H, minlength=layer.centroids_KD.shape[0])
        n_clusters, dim = layer.centroids_KD.shape
        before = self.residuals_HD.shape[0] // self._rows
        width = min(width, before * n_clusters)
        after_NWD = self.residuals_HD.new_empty((self._rows, width, dim))
        scales_NW = self._scales_H.new_empty((self._rows, width))
        counts_K = torch.zeros(n_clusters, dtype=torch.int64, device=after_NWD.device)
        norms_K = layer.centroids_KD.square().sum(dim=1) + layer.biases_K
        step = max(1, _CHUNK_BYTES // (4 * before * max(dim, n_clusters)))
        with full_float32_matmul(after_NWD.device):
            for start in range(0, self._rows, step):
                rows = slice(start, min(start + step, self._rows))
                hypotheses = slice(rows.start * before, rows.stop * before)
                residuals_HD, scales_H = self.residuals_HD[hypotheses], self._scales_H[hypotheses]
                costs_HK = residuals_HD.square().sum(dim=1, keepdim=True) + norms_K
                costs_HK -= 2.0 * (residuals_HD @ layer.centroids_KD.T)
                costs_HK *= scales_H[:, None].square()
                best_NW = costs_HK.view(-1, before * n_clusters).topk(width, largest=False).indices
                codes_NW = best_NW % n_clusters
                parents_NW = best_NW // n_clusters + before * torch.arange(len(best_NW), device=best_NW.device)[:, None]
                after_NWD[rows] = residuals_HD[parents_NW] - layer.centroids_KD[codes_NW]
                scales_NW[rows] = scales_H[parents_NW]
                counts_K += torch.bincount(codes_NW[:, 0], minlength=n_clusters)
        self.residuals_HD, self._scales_H = after_NWD.flatten(0, 1), scales_NW.flatten()
        return counts_K


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: FloatArray
    last: bool


def _flagging_last(batches: Iterable[FloatArray]) -> Iterator[_Batch]:
    """The batches that have rows, each knowing whether it is the last one."""
    held: FloatArray | None = None
    for batch_ND in batches:
        if batch_ND.shape[0]:
            if held is not None:
                yield _Batch(held, last=False)
            held = batch_ND
    if held is not None:
        yield _Batch(held, last=True)


def _in_float32(biases_K: Tensor, square: float) -> Tensor:
    """A frame's biases outside of it, where 1 is `square`; zeros, with a UserWarning, beyond float32."""
    outside_K = biases_K.double() * square
    narrow_K = outside_K.float()
    smallest = torch.finfo(torch.float32).tiny
    if bool((narrow_K.isinf() | ((outside_K != 0) & (narrow_K.abs() < smallest))).any()):
        warnings.warn("squared distances beyond float32 have no biases: codes are not balanced", stacklevel=3)
        return torch.zeros_like(narrow_K)
    return narrow_K


@contextmanager
def _device_memory() -> Iterator[None]:
    """A device's lack of memory as Python's own, which callers without torch can tell from other failures."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"the device's memory does not suffice for training: {error}") from error


def _chunks(rows_ND: Tensor) -> Iterator[slice]:
    """Slices of the rows for work in place, so that no second copy of all of them is made."""
    step = max(1, _CHUNK_BYTES // (4 * rows_ND.shape[1]))
    for start in range(0, rows_ND.shape[0], step):
        yield slice(start, start + step)


def _mean_square(rows_ND: Tensor) -> Tensor:
    """The mean squared norm of the rows, a float64 scalar on their device."""
    total = torch.zeros((), dtype=torch.float64, device=rows_ND.device)
    for chunk in _chunks(rows_ND):
        total += rows_ND[chunk].square().sum(dtype=torch.float64)
    return total / rows_ND.shape[0]


def _read_later(value: Tensor) -> Callable[[], float]:
    """Start copying a scalar off its device; the function waits for that copy only, not for later work."""
    if value.device.type != "cuda":
        return value.item
    copy = torch.empty((), dtype=value.dtype, pin_memory=True)
    copy.copy_(value, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> float:
        copied.synchronize()
        return float(copy)

    return read
