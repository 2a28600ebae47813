"""An N×D array of floats in a byte range -> float32 rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid_daemon.base.errors import BadFileError
from semid_daemon.base.types import FloatArray
from semid_daemon.formats.byte_ranges import ByteRange
from semid_daemon.formats.fields import FLOATS_WANTED

# Small enough that a block is converted while it is in the cache.
_BLOCK_BYTES = 1 << 18
# A column of a Fortran-order array is read at once for a whole chunk; several go to one block.
_COLUMNS = 16

# float16 bits, moved to where float32 has them, are 2**112 times too small: the exponents' biases differ.
_HALF_SCALE = np.float32(2.0**112)
_SIGN_EXPONENT_MANTISSA = np.array(0x8FFFE000, np.uint32).view(np.int32)
_HALF_INFINITY = 0x7C00
_SUBNORMAL = np.array([1e-40], np.float32)

_FLOAT_SIZES = {2: "float16", 4: "float32", 8: "float64"}


@dataclass(frozen=True, slots=True)
class FloatType:
    """How one number is stored: `raw` is the numpy dtype of its bytes (uint16 for bfloat16)."""

    name: str
    raw: np.dtype[np.generic]

    @property
    def is_bfloat16(self) -> bool:
        return self.name == "bfloat16"


BFLOAT16 = FloatType("bfloat16", np.dtype("<u2"))


def float_type(dtype: np.dtype[np.generic], field: str) -> FloatType:
    """The FloatType of a numpy dtype. Raises BadFileError, by name, for all that is no vector."""
    if dtype.kind == "f" and dtype.itemsize in _FLOAT_SIZES:
        return FloatType(_FLOAT_SIZES[dtype.itemsize], dtype)
    raise BadFileError(f"{field} is {dtype.name}; {FLOATS_WANTED}")


@dataclass(frozen=True, slots=True)
class VectorArray:
    """`rows`×`dim` numbers at `offset` of a byte range, in C or Fortran order."""

    byte_range: ByteRange
    offset: int
    rows: int
    dim: int
    stored: FloatType
    fortran: bool = False

    def read_into(self, first: int, out_ND: FloatArray) -> None:
        """Fill `out_ND` (N×dim float32, C order) with rows first...first+N-1."""
        if self.fortran and self.dim > 1 and self.rows > 1:
            self._read_columns(first, out_ND)
            return
        itemsize = self.stored.raw.itemsize
        start = self.offset + first * self.dim * itemsize
        flat = out_ND.reshape(-1)
        if self.stored.raw == np.dtype("<f4") and np.dtype("=f4") == np.dtype("<f4"):
            self.byte_range.read_into(start, flat.data.cast("B"))
            return
        block = np.empty(max(1, min(flat.size, _BLOCK_BYTES // itemsize)), self.stored.raw)
        for at in range(0, flat.size, block.size):
            part = block[: flat.size - at]
            self.byte_range.read_into(start + at * itemsize, _bytes_of(part))
            _convert(part, flat[at : at + part.size], self.stored)

    def _read_columns(self, first: int, out_ND: FloatArray) -> None:
        count = len(out_ND)
        itemsize = self.stored.raw.itemsize
        block_DN = np.empty((min(_COLUMNS, self.dim), count), self.stored.raw)
        for column in range(0, self.dim, _COLUMNS):
            part_DN = block_DN[: self.dim - column]
            for index, values_N in enumerate(part_DN):
                start = self.offset + ((column + index) * self.rows + first) * itemsize
                self.byte_range.read_into(start, _bytes_of(values_N))
            target_ND = out_ND[:, column : column + len(part_DN)]
            converted_DN = np.empty(part_DN.shape, np.float32)
            _convert(part_DN, converted_DN, self.stored)
            target_ND[...] = converted_DN.T


def _bytes_of(array: npt.NDArray[np.generic]) -> memoryview:
    # float16 has no code that memoryview.cast accepts in every Python: go through uint8.
    return array.view(np.uint8).data.cast("B")


def _convert(raw: npt.NDArray[np.generic], out: FloatArray, stored: FloatType) -> None:
    if stored.is_bfloat16:
        bits = out.view(np.uint32)
        np.copyto(bits, raw, casting="unsafe")
        np.left_shift(bits, 16, out=bits)
        return
    if stored.raw == np.dtype("<f2") and _subnormals_count():
        _widen_float16(raw, out)
        return
    # A float64 beyond float32 becomes infinite, and its row is left out.
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, raw, casting="unsafe")


def _subnormals_count() -> bool:
    """Whether this thread multiplies subnormal numbers; a library may have told it to take them as zero."""
    return bool((_SUBNORMAL * _HALF_SCALE)[0] != 0)


def _widen_float16(raw: npt.NDArray[np.generic], out: FloatArray) -> None:
    """float16 -> float32 by shifting bits and scaling the exponent, three times as fast as numpy's cast."""
    bits = out.view(np.int32)
    np.copyto(bits, raw.view(np.int16), casting="unsafe")
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_EXPONENT_MANTISSA, out=bits)
    np.multiply(out, _HALF_SCALE, out=out)
    if (raw.view(np.uint16) & 0x7FFF).max() >= _HALF_INFINITY:  # an infinity or NaN, which scaling loses
        np.copyto(out, raw, casting="unsafe")


def nonfinite_rows(values_ND: FloatArray) -> npt.NDArray[np.intp]:
    """Numbers of the rows that hold a NaN or an infinity."""
    # A sum is finite only if every value is; one pass, and the doubtful rows are looked at again
    # because large finite values overflow their sum.
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = np.flatnonzero(~np.isfinite(values_ND.sum(axis=1)))
    if not doubtful.size:
        return doubtful
    return doubtful[~np.isfinite(values_ND[doubtful]).all(axis=1)]
