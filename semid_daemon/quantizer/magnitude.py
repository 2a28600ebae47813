"""Rows of any magnitude and offset, in float32: norms that do not overflow, and the frame that a training works in.

Squares of float32 values leave float32 below 1e-22 and above 1e19, and differences between rows drown in a large
common offset. Powers of two change no bit of a value, so scaling by them costs no precision.

Shape suffixes: N rows, D dim, K centroids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Between these, norms and squares of float32 rows neither overflow nor underflow.
_SMALLEST_NORM, _LARGEST_NORM = 2.0**-39, 2.0**60
_CHUNK_BYTES = 1 << 26
# The values of all rows but so large a share of them decide the scale; rows longer than those by more than this factor
# are shortened to it. One broken row would leave no precision for all others.
_SHARE, _LONGEST = 0.99, 4096.0
# Scaling leaves sizes in this range alone: there float16 products, too, have their full precision.
_LOW, _HIGH = 2.0**-10, 2.0**3
# An offset is subtracted where it is larger than this multiple of the spread around it.
_OFFSET = 4.0


def normalize(rows_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1 and the norms (N) that they had, clamped to float32; a row of zeros stays one.

    The rows may hold any finite values of float32.
    """
    norms_N = torch.linalg.vector_norm(rows_ND, dim=1)
    unit_ND = torch.nn.functional.normalize(rows_ND, dim=1)
    extreme = out_of_range(norms_N).nonzero()[:, 0]
    if extreme.numel():
        exact_ED = rows_ND[extreme].double()
        largest = torch.finfo(rows_ND.dtype).max
        norms_N[extreme] = torch.linalg.vector_norm(exact_ED, dim=1).clamp_max(largest).to(rows_ND.dtype)
        unit_ND[extreme] = torch.nn.functional.normalize(exact_ED, dim=1, eps=1e-300).to(rows_ND.dtype)
    return unit_ND, norms_N


def out_of_range(norms_N: Tensor) -> Tensor:
    """Which norms (N bool) of float32 rows may have overflowed or underflowed, in the squares that they come from."""
    return ((norms_N > _SMALLEST_NORM) & (norms_N < _LARGEST_NORM)).logical_not()


def offset_of(centroids_KD: Tensor) -> Tensor | None:
    """The mean (D float64, of float32 values) of float64 centroids that is large beside their spread; else None."""
    mean_D = centroids_KD.mean(dim=0).float().double()
    spread = (centroids_KD - mean_D).square().sum(dim=1).mean()
    return mean_D if bool(mean_D.square().sum() > _OFFSET**2 * spread) else None


def scaled(values: Tensor, exponent: int) -> Tensor:
    """Values times 2**exponent, rounded once where the result is subnormal; infinite where it overflows."""
    # A factor of its own may be beyond float32; two halves of it are not.
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half) if exponent else values


@dataclass(frozen=True, slots=True)
class Frame:
    """How a training sees rows: (x · 2**-outer - offset) · 2**-inner, and no row larger than `longest`.

    Where all three do nothing, rows are left as they are. With normalized residuals a frame holds for the first layer
    alone; without, the later layers have its scale and not its offset.
    """

    normalized: bool
    outer: int
    offset_D: Tensor | None  # float32
    inner: int
    longest: float  # of the values of a row; after the offset is subtracted

    @staticmethod
    def of(rows_ND: Tensor, normalized: bool, centroids_KD: Tensor | None = None) -> Frame:
        """The frame of rows (N×D float32), and of centroids (K×D) that go with them; `normalized`: of length 1."""
        sizes_N = _sizes(rows_ND)
        if centroids_KD is not None:
            sizes_N = torch.cat([sizes_N, _sizes(centroids_KD)])
        common = _common_size(sizes_N)
        outer = 0 if normalized else _exponent(common)
        frame = Frame(normalized, outer, None, 0, _LONGEST * math.ldexp(common, -outer))
        offset_D, spread = _offset(rows_ND, frame)
        if offset_D is None:
            return frame
        if centroids_KD is not None:
            far_KD = scaled(centroids_KD, -outer) - offset_D
            spread = max(spread, _common_size(_sizes(far_KD)))
        inner = _exponent(spread)
        return Frame(normalized, outer, offset_D, inner, _LONGEST * math.ldexp(spread, -inner))

    def enter(self, rows_ND: Tensor) -> None:
        """Bring rows (N×D float32) into the frame, in place."""
        for chunk in _chunks(rows_ND):
            part_ND = rows_ND[chunk]
            if self.outer or self.offset_D is not None:
                part_ND.copy_(scaled(part_ND, -self.outer))
                if self.offset_D is not None:
                    part_ND.sub_(self.offset_D)
                    part_ND.copy_(scaled(part_ND, -self.inner))
            if not self.normalized or self.offset_D is not None:
                _shorten(part_ND, self.longest)

    def inside(self, rows_ND: Tensor) -> Tensor:
        """Rows (N×D float32) in the frame; those given are left as they are."""
        inside_ND = rows_ND.clone()
        self.enter(inside_ND)
        return inside_ND

    def centroids_inside(self, centroids_KD: Tensor, layer: int) -> Tensor:
        """A layer's centroids (K×D float32) as rows of the frame's layer are compared with them."""
        if self._is_plain(layer):
            return centroids_KD
        inside_KD = scaled(centroids_KD.double(), -self.outer)
        if layer == 0 and self.offset_D is not None:
            inside_KD = inside_KD - self.offset_D.double()
        return scaled(inside_KD, -self.inner).float()

    def centroids_outside(self, centroids_KD: Tensor, layer: int) -> Tensor:
        """What `centroids_inside` turns into the given ones, but for float32's rounding."""
        if self._is_plain(layer):
            return centroids_KD
        outside_KD = scaled(centroids_KD.double(), self.inner)
        if layer == 0 and self.offset_D is not None:
            outside_KD = outside_KD + self.offset_D.double()
        largest = torch.finfo(torch.float32).max
        return scaled(outside_KD, self.outer).clamp_(-largest, largest).float()

    def square(self, layer: int) -> float:
        """What 1 of a squared distance in the frame is outside of it."""
        return 1.0 if self.normalized and layer else math.ldexp(1.0, 2 * (self.outer + self.inner))

    def _is_plain(self, layer: int) -> bool:
        return (self.normalized and layer > 0) or (not self.outer and not self.inner and self.offset_D is None)


def _sizes(rows_ND: Tensor) -> Tensor:
    """The largest absolute value of every row (N)."""
    sizes_N: Tensor = torch.linalg.vector_norm(rows_ND, ord=math.inf, dim=1)
    return sizes_N


def _common_size(sizes_N: Tensor) -> float:
    """The size that all rows but a few do not exceed; of rows of zeros 1."""
    rank = max(1, int(_SHARE * sizes_N.numel()))
    return float(sizes_N.kthvalue(rank).values) or float(sizes_N.max()) or 1.0


def _exponent(size: float) -> int:
    """The exponent of a size, by whose power of two it is to be divided; 0 where it may stay as it is."""
    return 0 if _LOW <= size < _HIGH else math.frexp(size)[1]


def _offset(rows_ND: Tensor, frame: Frame) -> tuple[Tensor | None, float]:
    """The mean (D float32) of rows in a frame without one, where it is large beside their spread; and that spread,
    the size of the values that most rows have around it."""
    count, sum_D = 0, torch.zeros(rows_ND.shape[1], dtype=torch.float64, device=rows_ND.device)
    squares = torch.zeros((), dtype=torch.float64, device=rows_ND.device)
    for chunk in _chunks(rows_ND):
        part_ND = scaled(rows_ND[chunk], -frame.outer)
        usual_N = _sizes(part_ND) <= frame.longest
        part_ND = part_ND if bool(usual_N.all()) else part_ND[usual_N]
        count += part_ND.shape[0]
        sum_D += part_ND.sum(dim=0, dtype=torch.float64)
        squares += part_ND.square().sum(dtype=torch.float64)
    mean_D = sum_D / count
    square = float(mean_D.square().sum())
    if square <= _OFFSET**2 * (float(squares) / count - square):
        return None, 0.0
    offset_D = mean_D.float()
    sizes = [_sizes(scaled(rows_ND[chunk], -frame.outer) - offset_D) for chunk in _chunks(rows_ND)]
    return offset_D, _common_size(torch.cat(sizes))


def _shorten(rows_ND: Tensor, longest: float) -> None:
    """Shorten rows that have larger values than `longest`, in place."""
    sizes_N = _sizes(rows_ND)
    long = (sizes_N > longest).nonzero()[:, 0]
    if long.numel():
        rows_ND[long] = rows_ND[long] * (longest / sizes_N[long])[:, None]


def _chunks(rows_ND: Tensor) -> Iterator[slice]:
    step = max(1, _CHUNK_BYTES // (4 * rows_ND.shape[1]))
    for start in range(0, rows_ND.shape[0], step):
        yield slice(start, start + step)
