"""Drift: how new rows differ from those that a generation was trained on. Pure functions over numpy arrays.

Shape suffixes: N rows, K codes, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from semid_daemon.base.drift_base import expected_error_ratio
from semid_daemon.base.types import Baseline, CodeArray, CountArray

FEWEST_ROWS = 256  # that drift is measured on: smaller chunks are added up
_NEEDED_SHARE = 0.25  # of the window that must be filled before it can raise the alarm
_RELIEF = 0.8  # an alarm ends below this share of the excess that began it
_SMALLEST_ERROR = 1e-100  # that errors are divided by: below those of the smallest float32 values, 1e-90


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """Weighted sums over new rows."""

    rows: float  # sum of the weights
    squares: float  # sum of the squared weights
    errors: float  # sum of the quantization errors
    tail: float  # rows whose error is above the 99th percentile of the training rows
    assigned: float  # items that were new
    collided: float  # those of them that share their semantic ID with an earlier item
    counts_LK: CountArray  # rows by nearest code

    def __add__(self, other: RowStatistics) -> RowStatistics:
        return RowStatistics(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))

    @property
    def is_finite(self) -> bool:
        return all(bool(np.isfinite(getattr(self, name)).all()) for name in _FIELDS)

    def weighted(self, weight: float) -> RowStatistics:
        """The same rows with their weights multiplied by `weight`."""
        scaled = RowStatistics(*(getattr(self, name) * weight for name in _FIELDS))
        return replace(scaled, squares=self.squares * weight**2)


_FIELDS = ("rows", "squares", "errors", "tail", "assigned", "collided", "counts_LK")


def no_rows(layers: int, codebook_size: int) -> RowStatistics:
    """The statistics of no rows at all."""
    return RowStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.zeros((layers, codebook_size)))


def chunk_statistics(
    errors_S: npt.NDArray[np.floating], codes_NL: CodeArray, baseline: Baseline, *, assigned: int, collided: int
) -> RowStatistics:
    """The statistics of a chunk's new rows (codes N×L, N > 0); `errors_S` are the errors of all or of a sample."""
    codebook_size = baseline.counts_LK.shape[1]
    rows = float(len(codes_NL))
    return RowStatistics(
        rows=rows,
        squares=rows,
        errors=float(errors_S.mean(dtype=np.float64)) * rows,
        tail=float((errors_S > baseline.error_p99).mean()) * rows,
        assigned=float(assigned),
        collided=float(collided),
        counts_LK=np.stack([np.bincount(codes_N, minlength=codebook_size) for codes_N in codes_NL.T]).astype(float),
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """How far rows are from the training rows.

    `error_ratio` is their mean error over that of the training rows, `divergence_L` the `divergence` of code use by
    layer, `newly_used_L` how many codes they use that stand for no training row.
    """

    error_ratio: float
    tail_share: float
    collision_rate: float
    divergence_L: list[float]
    newly_used_L: list[int]


def drift_of(sums: RowStatistics, baseline: Baseline) -> Drift:
    """The drift of at least one row."""
    # The effective sample size of weighted rows (Kish 1965).
    effective = sums.rows**2 / sums.squares
    return Drift(
        error_ratio=sums.errors / sums.rows / max(baseline.error, _SMALLEST_ERROR),
        tail_share=sums.tail / sums.rows,
        collision_rate=sums.collided / sums.assigned if sums.assigned else 0.0,
        divergence_L=[
            divergence(counts_K, trained_K, effective)
            for counts_K, trained_K in zip(sums.counts_LK, baseline.counts_LK, strict=True)
        ],
        newly_used_L=[int(count) for count in ((sums.counts_LK > 0) & (baseline.counts_LK == 0)).sum(axis=1)],
    )


def expected_ratio(baseline: Baseline) -> float:
    """The error ratio of rows that have not drifted from the training rows."""
    layers, codebook_size = baseline.counts_LK.shape
    return expected_error_ratio(layers, codebook_size, float(baseline.counts_LK[0].sum()))


def divergence(counts_K: CountArray, trained_K: CountArray, rows: float) -> float:
    """Jensen-Shannon divergence (Lin 1991) in bits, 0 to 1, of two code uses, less what chance alone would show.

    `rows` samples of one distribution over U codes differ from it by about (U - 1) / (8 rows) nats, the second-order
    term of the divergence; without taking it away small chunks would always seem to have drifted.
    """
    p_K, q_K = counts_K / counts_K.sum(), trained_K / trained_K.sum()
    middle_K = (p_K + q_K) / 2
    nats = (_relative_entropy(p_K, middle_K) + _relative_entropy(q_K, middle_K)) / 2
    used = int(np.count_nonzero(middle_K))
    chance = (used - 1) / 8 * (1 / rows + 1 / trained_K.sum())
    return float(max(0.0, nats - chance) / np.log(2))


def _relative_entropy(p_K: npt.NDArray[np.float64], q_K: npt.NDArray[np.float64]) -> float:
    used_K = p_K > 0
    return float((p_K[used_K] * np.log(p_K[used_K] / q_K[used_K])).sum())


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A refresh is recommended when the window's error ratio over `expected_ratio`, or its divergence in any layer, is
    above these. The window holds about `window_rows` recent rows.
    """

    error_ratio: float
    js: float
    window_rows: float


@dataclass(frozen=True, slots=True)
class DriftState:
    """What is committed with every chunk: unreported rows, the window of recent rows, whether the alarm is on."""

    pending: RowStatistics
    window: RowStatistics
    alarm: bool

    def to_bytes(self) -> bytes:
        parts: list[npt.ArrayLike] = [[float(self.alarm)]]
        for sums in (self.pending, self.window):
            parts += [[getattr(sums, name) for name in _FIELDS[:-1]], sums.counts_LK.ravel()]
        return np.concatenate(parts).astype("<f8").tobytes()

    @staticmethod
    def from_bytes(state: bytes, layers: int, codebook_size: int) -> DriftState:
        """What `to_bytes` gave. Rows whose sums are not finite, of which nothing can be said, are dropped."""
        values = np.frombuffer(state, "<f8")
        halves = values[1:].reshape(2, -1)
        few = len(_FIELDS) - 1
        pending, window = (
            RowStatistics(
                **dict(zip(_FIELDS, half[:few].tolist(), strict=False)),
                counts_LK=half[few:].reshape(layers, codebook_size).copy(),
            )
            for half in halves
        )
        nothing = no_rows(layers, codebook_size)
        return DriftState(
            pending if pending.is_finite else nothing, window if window.is_finite else nothing, bool(values[0])
        )


@dataclass(frozen=True, slots=True)
class DriftUpdate:
    """The state after further rows.

    `latest` and `recent` are the drift of the latest rows and of the window, None while there are too few rows.
    `alarm` is True when the alarm was just raised, False when it just ended, else None.
    """

    state: DriftState
    latest: Drift | None
    recent: Drift | None
    alarm: bool | None


def update_drift(state: DriftState, new: RowStatistics, baseline: Baseline, thresholds: Thresholds) -> DriftUpdate:
    """Add the new rows of a chunk. In the window the weight of a row halves with every `window_rows` that follow.

    Rows whose sums are not finite change nothing.
    """
    if not new.is_finite:
        return DriftUpdate(state, None, None, None)
    window = state.window.weighted(0.5 ** (new.rows / thresholds.window_rows)) + new
    pending = state.pending + new
    if pending.rows < FEWEST_ROWS:
        return DriftUpdate(DriftState(pending, window, state.alarm), None, None, None)
    recent = drift_of(window, baseline)
    alarm = state.alarm
    if window.rows >= _NEEDED_SHARE * thresholds.window_rows:
        relief = _RELIEF if state.alarm else 1.0
        alarm = (
            recent.error_ratio / expected_ratio(baseline) > 1 + (thresholds.error_ratio - 1) * relief
            or max(recent.divergence_L) > thresholds.js * relief
        )
    following = DriftState(no_rows(*baseline.counts_LK.shape), window, alarm)
    return DriftUpdate(following, drift_of(pending, baseline), recent, None if alarm == state.alarm else alarm)
