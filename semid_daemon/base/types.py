"""Frozen records that cross rooms. No behaviour beyond small derived values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray: TypeAlias = npt.NDArray[np.float32]
    CodeArray: TypeAlias = npt.NDArray[np.int32]
    CountArray: TypeAlias = npt.NDArray[np.float64]
else:  # the terminal UI and `semid status` start without numpy
    FloatArray = CodeArray = CountArray = Any


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Consecutive rows of one drop file, without the rows at fault.

    `first_row` and `rows_read` say which rows of the file were read; `item_ids` and
    `embeddings_ND` (N×D float32, C order, every value finite) hold those that can be used, in file
    order; `rejected` counts the others by reason, so N + sum(rejected.values()) == rows_read.
    """

    first_row: int
    rows_read: int
    item_ids: list[str]
    embeddings_ND: FloatArray
    rejected: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_rejected(self) -> int:
        return sum(self.rejected.values())


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of training one layer.

    `step` counts from 1 over the whole run, `layer_step` from 1 within the layer. `loss` is what
    the trainer minimizes: for `lloyd` the mean squared distance of a row to its centroid, for
    `grid` GRID's weighted squared error. `initializing` marks the batches that only fill the
    buffer and set the first centroids.
    """

    step: int
    layer: int
    layer_step: int
    loss: float
    initializing: bool = False


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """Where a chunk's embeddings are in the spool."""

    segment: int
    first_byte: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a generation's training rows come to in its codebooks: new rows are judged by it.

    `error` is the mean quantization error of a row, `error_p99` the 99th percentile; `counts_LK` (float64) how many
    rows each code stands for.
    """

    error: float
    error_p99: float
    counts_LK: CountArray

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.error) and math.isfinite(self.error_p99)


@dataclass(frozen=True, slots=True)
class Codebooks:
    """The codebooks of one generation: `centroids_LKD` float32, and all that changes an encoding.

    `biases_LK` (float32, or None) are added to the squared distances: what keeps buckets even where that
    was asked for. `beam_width` is how many partial codes the search for a row's codes keeps, 1 being greedy.
    """

    centroids_LKD: FloatArray
    normalize_residuals: bool
    biases_LK: FloatArray | None = None
    beam_width: int = 1

    @property
    def layers(self) -> int:
        return int(self.centroids_LKD.shape[0])

    @property
    def codebook_size(self) -> int:
        return int(self.centroids_LKD.shape[1])

    @property
    def dim(self) -> int:
        return int(self.centroids_LKD.shape[2])
